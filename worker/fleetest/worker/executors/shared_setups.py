"""
Setups that the slots of one machine share: one of them runs the lines of `setup`, the others copy what it left.

A copy is as good as a setup of its own only when it is exact, and when nothing in it still points at the place that it
comes from. So what setup left is written down (inode, size and time of every file) before a test can see it, and a
place in which any of that has changed is not copied. The place's path, which virtual environments and editable installs
write into their files, is replaced by the new place's. Whatever else is met ends in a setup of one's own.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fleetest.common.disk import is_disk_full
from fleetest.common.threads import in_thread
from fleetest.worker.copying import copy_content
from fleetest.worker.executors.file_lock import FileLocks
from fleetest.worker.executors.places import Place
from fleetest.worker.executors.setup_products import Stamp, snapshot

__all__ = ["SharedSetups"]

_VERSION: Final = 1
_LARGE_BYTES: Final = 32 << 20
_LONGEST_SHEBANG_BYTES: Final = 127  # of Linux, the strictest (load_script in fs/binfmt_script.c)
_PLAIN_PATH: Final = re.compile(r"[\w/.+~@-]+", re.ASCII)

Swaps = Sequence[tuple[bytes, bytes]]


class _NotCopied(Exception):
    """There is no copy to be had that would be right."""


class SharedSetups:
    """
    Args:
        directory: of the records; best shared by the workers of one machine.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks = FileLocks(directory / "locks")

    def hold(self, place: Place) -> AbstractAsyncContextManager[None]:
        """
        Wait until nobody else sets up a place like this one, and keep others from it.

        Raises:
            CapacityExceeded, DependencyUnavailable: as `FileLocks.hold` does.
        """
        return self._locks.hold(place.key)

    async def offer(self, place: Place) -> None:
        """Let others copy the place, which has just been set up. Raises OSError."""
        await in_thread(self._record, place)

    async def copy(self, place: Place) -> bool:
        """
        Make the place, which is not set up, what setup would make it; false when that needs a setup of its own.

        Raises:
            OSError: the disk is full.
        """
        return await in_thread(self._copy, place)

    def _file(self, place: Place) -> Path:
        return self._directory / f"{place.key}.json"

    def _record(self, place: Place) -> None:
        content = {
            "version": _VERSION,
            "root": str(place.root),
            "venv": snapshot(place.venv),
            "products": snapshot(place.setup_products),
        }
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._file(place).with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self._file(place))
        finally:
            temporary.unlink(missing_ok=True)

    def _copy(self, place: Place) -> bool:
        place.forget_setup()
        try:
            record = self._read(place)
            origin = Place(root=Path(record["root"]))
            if not origin.is_set_up or origin.root == place.root:
                return False
            swaps = _swaps(origin.root, place.root)
            _copy_all(origin.venv, place.venv, record["venv"], swaps)
            _copy_all(origin.setup_products, place.setup_products, record["products"], swaps)
        except OSError as error:
            place.forget_setup()
            if is_disk_full(error):
                raise
            return False  # it has been removed, or is somebody else's
        except (_NotCopied, ValueError, TypeError, KeyError):
            place.forget_setup()
            return False
        return True

    def _read(self, place: Place) -> Mapping[str, Any]:
        with self._file(place).open("rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                raise _NotCopied
            record: Mapping[str, Any] = json.load(file)
        if record["version"] != _VERSION:
            raise _NotCopied
        return record


def _swaps(origin: Path, target: Path) -> Swaps:
    """What stands for the one path in files, and what for the other: as it is given, and as links lead to it."""
    found = {str(origin): str(target)}
    found[str(origin.resolve())] = str(target.resolve())
    if not all(_PLAIN_PATH.fullmatch(path) and quote(path) == path for pair in found.items() for path in pair):
        raise _NotCopied  # it may be written in several ways: in a URL, in JSON, in a shell's quotes
    return [(old.encode(), new.encode()) for old, new in found.items()]


def _copy_all(origin: Path, target: Path, files: Mapping[str, Sequence[int]], swaps: Swaps) -> None:
    same_lengths = all(len(old) == len(new) for old, new in swaps)
    for name, stamp in files.items():
        source, copied = origin / name, target / name
        if source.suffix == ".pyc" and source.parent.name == "__pycache__" and not same_lengths:
            continue  # Python makes it again
        copied.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            _check(source.lstat(), stamp)
            copied.symlink_to(os.fsdecode(_swapped(os.fsencode(source.readlink()), swaps)))
        else:
            _copy_file(source, copied, stamp, swaps)


def _copy_file(source: Path, target: Path, stamp: Sequence[int], swaps: Swaps) -> None:
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check(status, stamp)
        mode = stat.S_IMODE(status.st_mode)
        created = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(created, "wb") as copy:
            if status.st_size > _LARGE_BYTES:
                _check_free_of(descriptor, swaps)
                copy_content(descriptor, created)
            else:
                copy.write(_swapped(file.read(), swaps))
                copy.flush()
            os.fchmod(created, mode)
            # Compiled modules name the time of their source.
            os.utime(created, ns=(status.st_atime_ns, status.st_mtime_ns))
        _check(os.fstat(descriptor), stamp)


def _check(status: os.stat_result, stamp: Sequence[int]) -> None:
    """Whether this is what setup left."""
    found: Stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    if found != tuple(stamp) or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise _NotCopied


def _check_free_of(descriptor: int, swaps: Swaps) -> None:
    with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as content:
        if any(content.find(old) >= 0 for old, _ in swaps):
            raise _NotCopied


def _swapped(content: bytes, swaps: Swaps) -> bytes:
    for old, new in swaps:
        if old in content:
            if len(old) != len(new) and b"\0" in content:
                raise _NotCopied  # offsets would no longer be right
            content = content.replace(old, new)
            if content.startswith(b"#!") and len(content.partition(b"\n")[0]) > _LONGEST_SHEBANG_BYTES:
                raise _NotCopied
    return content
