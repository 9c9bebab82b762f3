"""Who a worker is: its directory, which is its alone, and its id, which it keeps."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleetest.common.errors import AlreadyExists, InvalidRequest

__all__ = ["own_directory", "persistent_worker_id"]


@contextmanager
def own_directory(directory: Path) -> Iterator[None]:
    """
    Keep other workers out of the directory; the lock goes with the process, however it ends.

    Raises:
        AlreadyExists: another worker uses it.
        InvalidRequest: it cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InvalidRequest(
            f"cannot use the worker's directory {directory}: {error.strerror}",
            hint="Name another with --directory or FLEETEST_DATA_DIR.",
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyExists(
                f"another worker uses the directory {directory}",
                hint="Give each worker its own with --directory or FLEETEST_DATA_DIR.",
            ) from None
        yield
    finally:
        os.close(descriptor)


def persistent_worker_id(directory: Path) -> str:
    """The id that this directory's worker has had from its first start: the host's name and a random suffix."""
    file = directory / "worker-id"
    if file.exists() and (known := file.read_text(encoding="utf-8").strip()):
        return known
    worker_id = f"{socket.gethostname().partition('.')[0]}-{secrets.token_hex(3)}"
    file.write_text(worker_id + "\n", encoding="utf-8")
    return worker_id
