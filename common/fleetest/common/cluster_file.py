"""
`cluster.json` in the data directory: where this user's embedded cluster serves, and how to get in.

Readable by its owner only, since it holds a token. It counts only while the supervisor that wrote it holds the lock
beside it, which ends with that process however it ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Final

from fleetest.common.errors import AlreadyExists

__all__ = ["ClusterFile", "data_directory", "hold_lock", "is_locked"]

_LOOKERS_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """
    Args:
        address: of the master.
        token: for clients; never shown.
        pid: of the supervisor.
        started_at: ISO 8601.
    """

    address: str
    token: str = field(repr=False)
    pid: int
    version: str
    started_at: str

    @staticmethod
    def path(directory: Path) -> Path:
        return directory / "cluster.json"

    @classmethod
    def read(cls, directory: Path) -> ClusterFile | None:
        """`None` when there is none, or it is not whole."""
        try:
            stored = json.loads(cls.path(directory).read_text())
            return cls(**{each.name: stored[each.name] for each in fields(cls)})  # a newer one may say more
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, directory: Path) -> None:
        """Atomically."""
        temporary = self.path(directory).with_suffix(".tmp")
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
        temporary.replace(self.path(directory))

    @classmethod
    def remove(cls, directory: Path) -> None:
        cls.path(directory).unlink(missing_ok=True)


def data_directory(environment: Mapping[str, str]) -> Path:
    """`FLEETEST_DATA_DIR`, or the user's own data directory as the platform has it."""
    import platformdirs

    chosen = environment.get("FLEETEST_DATA_DIR", "").strip()
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_data_dir("fleetest"))


@contextmanager
def hold_lock(directory: Path) -> Iterator[None]:
    """
    Be the only supervisor of this directory.

    Raises:
        AlreadyExists: another process is.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(_lock(directory), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        limit = time.monotonic() + _LOOKERS_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > limit:
                raise AlreadyExists(f"a cluster runs in {directory} already", hint="stop it: fleetest down")
            time.sleep(_LOOKERS_SECONDS / 50)  # somebody may only be looking, see `is_locked`
        yield
    finally:
        os.close(descriptor)


def is_locked(directory: Path) -> bool:
    """Whether a supervisor lives. Looking takes the lock for a moment, beside others who look."""
    try:
        descriptor = os.open(_lock(directory), os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _lock(directory: Path) -> Path:
    return directory / "lock"


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
