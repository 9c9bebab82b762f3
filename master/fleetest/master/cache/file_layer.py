"""The largest and slowest layer: files below a directory, which outlive every process."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from fleetest.common.clock import Clock
from fleetest.common.disk import disk_errors
from fleetest.common.threads import in_thread
from fleetest.master.cache.layers import CacheStrategy, Eviction, check_key, covers

__all__ = ["FileLayer"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_PARTIAL: Final = ".partial"


class FileLayer:
    """
    Fulfils `CacheLayer`: one file for each value, its key being its path.

    When a value was put is its file's time of modification, when it was last asked for the time of access, so that a
    new process knows both. Several processes may share a directory; each counts what it knows of, so that there may be
    more in it than the strategy says, but never for longer.
    """

    name = "file"

    def __init__(self, root: Path, strategy: CacheStrategy, clock: Clock) -> None:
        self._root = root
        self._strategy = strategy
        self._clock = clock
        self._sizes: OrderedDict[str, int] | None = None
        self._total_bytes = 0
        self._lock = asyncio.Lock()

    async def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        return await self._on_disk(self._read_all, keys)

    async def put(self, values: Mapping[str, bytes]) -> None:
        await self._on_disk(self._write_all, values)

    async def drop(self, scope: str) -> None:
        await self._on_disk(self._drop, check_key(scope))

    async def _on_disk(
        self, work: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
    ) -> _Result:
        """One thing at a time, in a thread, with the directory's files known."""
        async with self._lock:
            with disk_errors(f"the result cache in {self._root}"):
                if self._sizes is None:
                    await in_thread(self._scan)
                return await in_thread(work, *args, **kwargs)

    def _scan(self) -> None:
        """What is there already, in the order in which it makes room."""
        found = []
        for directory, _, names in os.walk(self._root):
            for name in names:
                path = Path(directory, name)
                if name.endswith(_PARTIAL):  # of a process that died
                    path.unlink(missing_ok=True)
                    continue
                status = path.stat()
                used = status.st_atime_ns if self._strategy.eviction is Eviction.LRU else status.st_mtime_ns
                found.append((used, path.relative_to(self._root).as_posix(), status.st_size))
        self._sizes = OrderedDict((key, size) for _, key, size in sorted(found))
        self._total_bytes = sum(self._sizes.values())

    @property
    def _known(self) -> OrderedDict[str, int]:
        assert self._sizes is not None  # it was scanned
        return self._sizes

    def _read_all(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        read = {key: self._read(key) for key in keys}
        return {key: content for key, content in read.items() if content is not None}

    def _read(self, key: str) -> bytes | None:
        path, now = self._root / check_key(key), self._clock.now().timestamp()
        try:
            content = path.read_bytes()
            put_at = path.stat().st_mtime
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            self._forget(key)
            return None
        if now - put_at >= self._strategy.ttl.total_seconds():
            self._remove(key)
            return None
        if self._strategy.eviction is Eviction.LRU:
            os.utime(path, (now, put_at))
            if key in self._known:
                self._known.move_to_end(key)
        return content

    def _write_all(self, values: Mapping[str, bytes]) -> None:
        for key, content in values.items():
            self._remove(key)
            if len(content) + len(key) > self._strategy.max_bytes:
                continue
            self._make_room(len(content) + len(key))
            self._write(key, content)
            self._known[key] = len(content)
            self._total_bytes += len(content)

    def _write(self, key: str, content: bytes) -> None:
        """Whole or not at all; not synced, as a value that a crash of the machine breaks is found out by its reader."""
        path, now = self._root / check_key(key), self._clock.now().timestamp()
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            os.utime(partial, (now, now))
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _make_room(self, needed_bytes: int) -> None:
        while self._known and self._total_bytes + needed_bytes > self._strategy.max_bytes:
            if self._strategy.eviction is Eviction.RANDOM:
                self._remove(random.choice(list(self._known)))  # noqa: S311 - nothing secret hangs on it
            else:
                self._remove(next(iter(self._known)))

    def _drop(self, scope: str) -> None:
        for directory, _, names in os.walk(self._root / scope):
            for name in names:
                Path(directory, name).unlink(missing_ok=True)
        for key in [key for key in self._known if covers(scope, key)]:
            self._remove(key)

    def _remove(self, key: str) -> None:
        (self._root / key).unlink(missing_ok=True)
        self._forget(key)

    def _forget(self, key: str) -> None:
        self._total_bytes -= self._known.pop(key, 0)
