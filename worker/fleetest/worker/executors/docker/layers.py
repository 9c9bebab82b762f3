"""Workspaces as they lie below those of containers: one directory for each, never written to once it is whole."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fleetest.common.digest import digest_of
from fleetest.common.disk import disk_errors
from fleetest.common.threads import in_thread
from fleetest.worker.ownership import Owner
from fleetest.worker.ports import Workspaces

__all__ = ["Layers"]

_KEPT: Final = 16
_EMPTY: Final = "empty"


class Layers:
    """
    The layers below one directory; the longest unused are removed when there are too many.

    Args:
        root: of this worker alone.
        owner: whose the files are to be.
        kept: how many at most, beside those in use.
    """

    def __init__(self, root: Path, workspaces: Workspaces, *, owner: Owner, kept: int = _KEPT) -> None:
        self._root = root
        self._workspaces = workspaces
        self._owner = owner
        self._kept = kept
        self._uses: Counter[Path] = Counter()
        self._locks: dict[Path, asyncio.Lock] = {}

    async def acquire(self, workspace_digest: str) -> Path:
        """
        The directory that holds the workspace, until `release`. No digest means an empty one.

        Raises:
            NotFound, CapacityExceeded, DependencyUnavailable
        """
        layer = self._root / (digest_of(workspace_digest.encode())[:32] if workspace_digest else _EMPTY)
        self._uses[layer] += 1
        try:
            async with self._making(layer):
                with disk_errors(f"the workspace layer {layer}"):
                    if not _marker(layer).exists():
                        await self._make(workspace_digest, layer)
                    await in_thread(_touch, layer)
        except BaseException:
            self.release(layer)
            raise
        for removed in await in_thread(self._remove_longest_unused):
            await self._workspaces.forget(removed)
        return layer

    def release(self, layer: Path) -> None:
        self._uses[layer] -= 1
        if self._uses[layer] <= 0:
            del self._uses[layer]

    @asynccontextmanager
    async def _making(self, layer: Path) -> AsyncIterator[None]:
        lock = self._locks.setdefault(layer, asyncio.Lock())
        async with lock:
            yield
        if layer not in self._uses:
            self._locks.pop(layer, None)

    async def _make(self, workspace_digest: str, layer: Path) -> None:
        await in_thread(layer.mkdir, parents=True, exist_ok=True)
        await self._workspaces.synchronise(workspace_digest, layer, owner=self._owner)
        await in_thread(_marker(layer).touch)

    def _remove_longest_unused(self) -> list[Path]:
        layers = [path for path in self._root.iterdir() if path.is_dir()]
        unused = sorted((path for path in layers if path not in self._uses), key=_last_used)
        excess = unused[: max(0, len(layers) - self._kept)]
        for layer in excess:
            _marker(layer).unlink(missing_ok=True)
            shutil.rmtree(layer, ignore_errors=True)
        return excess


def _marker(layer: Path) -> Path:
    """A file that says that the layer is whole."""
    return layer.with_suffix(".whole")


def _last_used(layer: Path) -> float:
    try:
        return _marker(layer).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _touch(layer: Path) -> None:
    now = time.time()
    os.utime(_marker(layer), (now, now))
