"""
What processes of a container can leave behind in memory: files in `/tmp` and `/dev/shm`, and message queues, semaphores
and shared memory that outlive who made them.

All of it is reached from outside, by way of a process that still runs in the container, which costs a thousandth of
starting one there. It takes root on the Engine's machine.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import Final

from fleetest.worker.directories import names_in, remove

__all__ = ["wipe_memory"]

_PLACES: Final = ("tmp", "dev/shm", "dev/mqueue")
_SYSTEM_V: Final = ("msg", "sem", "shm")
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLONE_NEWIPC: Final = 0x08000000  # <linux/sched.h>


def wipe_memory(pid: int) -> bool:
    """
    Remove the files, message queues of POSIX included; answers whether nothing else is left. Nothing may run there.

    Args:
        pid: of the container's main process, as this machine counts.

    Raises:
        OSError: it cannot be reached from here.
    """
    for place in _PLACES:
        try:
            directory = os.open(f"/proc/{pid}/root/{place}", _OPEN)
        except FileNotFoundError:
            continue
        try:
            for name in names_in(directory):
                remove(directory, name)
        finally:
            os.close(directory)
    return not _has_system_v_objects(pid)


def _has_system_v_objects(pid: int) -> bool:
    """Seen by a thread that enters the container's namespace (setns(2)), and ends there."""
    seen: list[bool | OSError] = []

    def look() -> None:
        try:
            _enter_ipc_namespace(pid)
            # A heading, and a line for each object.
            seen.append(any(len(Path(f"/proc/sysvipc/{kind}").read_text().splitlines()) > 1 for kind in _SYSTEM_V))
        except OSError as error:
            seen.append(error)

    thread = threading.Thread(target=look, name="ipc-namespace")
    thread.start()
    thread.join()
    if isinstance(seen[0], OSError):
        raise seen[0]
    return seen[0]


def _enter_ipc_namespace(pid: int) -> None:
    namespace = os.open(f"/proc/{pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWIPC) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(namespace)
