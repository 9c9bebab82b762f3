"""A worker's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from platformdirs import user_data_path

from fleetest.common.settings import Secret, pairs, path, seconds, secret, setting, text, whole_number, words

__all__ = ["WorkerSettings"]

_LOCAL_MASTER: Final[tuple[str, ...]] = ("127.0.0.1:50051",)
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


def _addresses(raw: str) -> tuple[str, ...]:
    addresses = words(raw)
    if not addresses:
        raise ValueError("names no master")
    return addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """
    Read once with `read_settings`; nothing below reads the environment.

    Args:
        masters: `host:port` each; the worker uses one at a time and goes on to the next when it does not answer.
        worker_id: empty means the host's name and a random suffix, kept in the directory.
        labels: capabilities that the worker cannot find by itself.
        slots: how many shards at once; 0 lets the worker decide by its cpu and memory.
        directory: everything that the worker keeps on disk; one worker at a time uses it.
        cache_directory: of workspace files; workers of one machine may share it. Absent means in `directory`.
        cache_bytes: the most that the cache holds.
        idle_timeout: how long a slot keeps an unused session and its environment open.
        id_patience: how long another worker of the same id may be a ghost of this one whose lease still runs.
    """

    masters: tuple[str, ...] = setting("FLEETEST_MASTER", _addresses, default=_LOCAL_MASTER)
    token: Secret = setting("FLEETEST_TOKEN", secret, default=Secret())
    worker_id: str = setting("FLEETEST_WORKER_ID", text, default="")
    labels: Mapping[str, str] = setting("FLEETEST_WORKER_LABELS", pairs, default=_NO_LABELS)
    slots: int = setting("FLEETEST_WORKER_SLOTS", whole_number(), default=0)
    directory: Path = setting("FLEETEST_DATA_DIR", path, default=user_data_path("fleetest") / "worker")
    cache_directory: Path | None = setting("FLEETEST_CACHE_DIR", path, default=None)
    cache_bytes: int = setting("FLEETEST_WORKER_CACHE_BYTES", whole_number(at_least=1 << 20), default=8 << 30)
    idle_timeout: timedelta = setting("FLEETEST_WORKER_IDLE_TIMEOUT_SECONDS", seconds, default=timedelta(minutes=1))
    id_patience: timedelta = setting("FLEETEST_WORKER_ID_PATIENCE_SECONDS", seconds, default=timedelta(seconds=45))
    log_level: str = setting("FLEETEST_LOG_LEVEL", text, default="info")
