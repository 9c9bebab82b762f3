"""Places on disk where tasks run: a source directory each and, for tasks with a `setup`, a virtual environment."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetest.worker.assignments import TaskSpec

__all__ = ["Place", "Places"]

_KEPT_PER_SLOT: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    One stable set of paths: equal for every task of the same slot, project, setup and interpreter, so that caches and
    whatever else remembers a path stay right.
    """

    root: Path

    @property
    def key(self) -> str:
        """Equal for the places, of other slots too, in which the same setup is done with the same interpreter."""
        return self.root.name

    @property
    def source(self) -> Path:
        return self.root / "src"

    @property
    def venv(self) -> Path:
        return self.root / "venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def setup_products(self) -> Path:
        return self.root / "setup"

    @property
    def is_set_up(self) -> bool:
        return self._marker.exists()

    @property
    def last_used(self) -> float:
        try:
            return self.root.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    @property
    def _marker(self) -> Path:
        return self.root / "complete"

    def forget_setup(self) -> None:
        """Setup starts afresh: it never came to its end, or its result is not trusted."""
        self._marker.unlink(missing_ok=True)
        shutil.rmtree(self.venv, ignore_errors=True)
        shutil.rmtree(self.setup_products, ignore_errors=True)

    def mark_set_up(self) -> None:
        """From now on, and after a crash too, setup counts as done."""
        descriptor = os.open(self._marker, os.O_CREAT | os.O_WRONLY, 0o600)
        os.fsync(descriptor)
        os.close(descriptor)


class Places:
    """
    The places below one directory; the longest unused are removed when a slot has too many.

    Args:
        root: of this worker alone.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: list[Path] = []

    def open(self, spec: TaskSpec, *, slot: int, python: str) -> Place:
        """The place for a task; it is not removed before `close`."""
        identity = "\0".join((spec.project, spec.setup_digest if spec.setup else "", python, *spec.setup))
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]
        place = Place(root=self._root / str(slot) / key)
        place.source.mkdir(parents=True, exist_ok=True)
        now = time.time()
        os.utime(place.root, (now, now))
        self._open.append(place.root)
        self._remove_longest_unused(place.root.parent)
        return place

    def close(self, place: Place) -> None:
        self._open.remove(place.root)

    def _remove_longest_unused(self, slot: Path) -> None:
        places = sorted((Place(root=path) for path in slot.iterdir()), key=lambda place: place.last_used)
        excess = len(places) - _KEPT_PER_SLOT
        for place in [place for place in places if place.root not in self._open][: max(0, excess)]:
            shutil.rmtree(place.root, ignore_errors=True)
