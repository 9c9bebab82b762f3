"""File systems that show one directory on top of another, as the Engine mounts them for containers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["overlay"]


@contextmanager
def overlay(layer: Path, directory: Path) -> Iterator[Path]:
    """A directory, somewhere below `directory`, that shows a layer. Only root can mount it."""
    merged, upper, work = (directory / name for name in ("merged", "upper", "work"))
    for path in (merged, upper, work):
        path.mkdir(parents=True)
    options = f"lowerdir={layer},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", str(merged)], check=True)
    try:
        yield merged
    finally:
        subprocess.run(["umount", str(merged)], check=True)
