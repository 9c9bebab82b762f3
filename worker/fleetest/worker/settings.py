"""A worker's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from platformdirs import user_data_path

from fleetest.common.settings import Secret, header_secret, pairs, path, seconds, setting, text, whole_number, words
from fleetest.common.tls import TlsSettings

__all__ = ["WorkerSettings"]

_LOCAL_MASTER: Final[tuple[str, ...]] = ("127.0.0.1:50051",)
_EXECUTORS: Final = ("process", "docker")
_ANY_EXECUTOR: Final[tuple[str, ...]] = ()
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


def _addresses(raw: str) -> tuple[str, ...]:
    addresses = words(raw)
    if not addresses:
        raise ValueError("names no master")
    return addresses


def _executors(raw: str) -> tuple[str, ...]:
    names = words(raw)
    for name in names:
        if name not in _EXECUTORS:
            raise ValueError(f"there is no executor {name!r}; choose of {', '.join(_EXECUTORS)}")
    return names


def _user(raw: str) -> tuple[int, int]:
    uid, _, gid = raw.partition(":")
    if not uid.isdecimal() or not gid.isdecimal():
        raise ValueError(f"{raw!r} is not of the form uid:gid, two numbers")
    if int(uid) == 0:
        raise ValueError("tests do not run as root")
    return int(uid), int(gid)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(TlsSettings):
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
        compiled_bytes: the most that sessions keep of compiled modules, for each executor; 0 keeps nothing.
        idle_timeout: how long a slot keeps an unused session and its environment open.
        id_patience: how long another worker of the same id may be a ghost of this one whose lease still runs.
        executors: the only ones that the worker may offer; none means all that it can.
        engine_url: of the Docker Engine.
        engine_verified: whether the Engine must show a certificate that is signed by the ca.pem of the next.
        engine_certificates: a directory with ca.pem, cert.pem and key.pem; absent means no TLS.
        published_host: under which others reach the ports that services publish here; empty lets the worker find out.
        container_user: uid and gid of tests in containers, when the worker is root; else they are the worker's own.
        container_pids: processes and threads of a container, at most.
        container_tmp_bytes: size of a container's /tmp, which counts as memory.
        warm_containers: how many that no slot uses are kept for the next task that needs the like.
        warm_timeout: for how long.
        setup_images: how many setups the Engine keeps, those of the other workers on it included.
        setup_image_bytes: what all of them may take.
        package_cache_bytes: what a project's setups may keep of downloaded packages.
    """

    masters: tuple[str, ...] = setting("FLEETEST_MASTER", _addresses, default=_LOCAL_MASTER)
    token: Secret = setting("FLEETEST_TOKEN", header_secret, default=Secret())
    worker_id: str = setting("FLEETEST_WORKER_ID", text, default="")
    labels: Mapping[str, str] = setting("FLEETEST_WORKER_LABELS", pairs, default=_NO_LABELS)
    slots: int = setting("FLEETEST_WORKER_SLOTS", whole_number(), default=0)
    directory: Path = setting("FLEETEST_DATA_DIR", path, default=user_data_path("fleetest") / "worker")
    cache_directory: Path | None = setting("FLEETEST_CACHE_DIR", path, default=None)
    cache_bytes: int = setting("FLEETEST_WORKER_CACHE_BYTES", whole_number(at_least=1 << 20), default=8 << 30)
    compiled_bytes: int = setting("FLEETEST_COMPILED_CACHE_BYTES", whole_number(), default=1 << 30)
    idle_timeout: timedelta = setting("FLEETEST_WORKER_IDLE_TIMEOUT_SECONDS", seconds, default=timedelta(minutes=1))
    id_patience: timedelta = setting("FLEETEST_WORKER_ID_PATIENCE_SECONDS", seconds, default=timedelta(seconds=45))
    executors: tuple[str, ...] = setting("FLEETEST_EXECUTORS", _executors, default=_ANY_EXECUTOR)
    engine_url: str = setting("DOCKER_HOST", text, default="unix:///var/run/docker.sock")
    engine_verified: bool = setting("DOCKER_TLS_VERIFY", bool, default=False)
    engine_certificates: Path | None = setting("DOCKER_CERT_PATH", path, default=None)
    published_host: str = setting("FLEETEST_PUBLISHED_HOST", text, default="")
    container_user: tuple[int, int] = setting("FLEETEST_CONTAINER_USER", _user, default=(1000, 1000))
    container_pids: int = setting("FLEETEST_CONTAINER_PIDS", whole_number(at_least=16), default=1024)
    container_tmp_bytes: int = setting("FLEETEST_CONTAINER_TMP_BYTES", whole_number(at_least=1 << 20), default=1 << 30)
    warm_containers: int = setting("FLEETEST_WARM_CONTAINERS", whole_number(), default=8)
    warm_timeout: timedelta = setting("FLEETEST_WARM_CONTAINER_SECONDS", seconds, default=timedelta(minutes=5))
    setup_images: int = setting("FLEETEST_SETUP_IMAGES", whole_number(at_least=1), default=20)
    setup_image_bytes: int = setting("FLEETEST_SETUP_IMAGE_BYTES", whole_number(at_least=1 << 20), default=20 << 30)
    package_cache_bytes: int = setting("FLEETEST_PACKAGE_CACHE_BYTES", whole_number(at_least=1 << 20), default=4 << 30)
    log_level: str = setting("FLEETEST_LOG_LEVEL", text, default="info")
