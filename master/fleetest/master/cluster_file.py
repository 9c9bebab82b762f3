"""
`cluster.json` in the data directory: where this user's embedded cluster serves, and how to get in.

Readable by its owner only, since it holds the tokens.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetest.common.errors import AlreadyExists

__all__ = ["ClusterFile", "data_directory", "hold_lock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFile:
    """
    Args:
        address: of the master.
        token: for clients.
        pid: of the supervisor.
        started_at: ISO 8601.
    """

    address: str
    token: str
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
            return cls(**json.loads(cls.path(directory).read_text()))
        except (OSError, ValueError, TypeError):
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


def data_directory(environment: dict[str, str] | os._Environ[str]) -> Path:
    """`FLEETEST_DATA_DIR`, or the user's own data directory as the platform has it."""
    import platformdirs

    chosen = environment.get("FLEETEST_DATA_DIR", "").strip()
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_data_dir("fleetest"))


@contextmanager
def hold_lock(directory: Path) -> Iterator[None]:
    """
    Be the only supervisor of this directory; the lock ends with the process, however it ends.

    Raises:
        AlreadyExists: another process holds it.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AlreadyExists(f"a cluster runs in {directory} already", hint="stop it: fleetest down") from None
    try:
        yield
    finally:
        os.close(descriptor)
