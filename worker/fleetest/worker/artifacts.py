"""Finds the files that a task leaves behind, and has them stored."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from fleetest.common.errors import FleetestError
from fleetest.common.limits import MAX_ARTIFACT_BYTES
from fleetest.worker.assignments import Reporter
from fleetest.worker.ports import Blobs

__all__ = ["collect_artifacts", "matching_files"]

_MOST_FILES: Final = 10_000


async def collect_artifacts(blobs: Blobs, root: Path, globs: Sequence[str], reporter: Reporter) -> None:
    """Store what `globs` match below `root`, and report it. Never raises: what went wrong is reported too."""
    paths, problems = await asyncio.to_thread(matching_files, root, globs, MAX_ARTIFACT_BYTES)
    try:
        artifacts, unstored = await blobs.store(root, paths) if paths else ((), ())
    except FleetestError as error:
        artifacts, unstored = (), (f"artifacts could not be stored: {error.message}",)
    if artifacts or problems or unstored:
        reporter.artifacts(artifacts, [*problems, *unstored])


def matching_files(root: Path, globs: Sequence[str], most_bytes: int) -> tuple[list[Path], list[str]]:
    """
    The regular files below `root` that any of `globs` matches, in order of their names, and what is wrong with others.

    A glob that matches a directory means all files below it. Nothing outside of `root` is ever answered, whatever
    links a test made.
    """
    found: dict[Path, None] = {}
    problems: list[str] = []
    real_root = root.resolve()
    for pattern in globs:
        if pattern.startswith("/") or ".." in pattern.split("/"):
            problems.append(f"{pattern}: leaves the workspace")
            continue
        for path in sorted(_expand(root, pattern)):
            if path in found:
                continue
            problem = _problem(path, real_root, most_bytes)
            if problem:
                problems.append(f"{path.relative_to(root)}: {problem}")
            elif len(found) >= _MOST_FILES:
                problems.append(f"{pattern}: more than {_MOST_FILES} files; the rest is left out")
                break
            else:
                found[path] = None
    return list(found), problems


def _expand(root: Path, pattern: str) -> Iterator[Path]:
    try:
        matches = list(root.glob(pattern))
    except (ValueError, NotImplementedError, OSError):
        return
    for path in matches:
        if path.is_dir() and not path.is_symlink():
            for directory, _, names in os.walk(path):
                yield from (Path(directory) / name for name in names)
        else:
            yield path


def _problem(path: Path, real_root: Path, most_bytes: int) -> str:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(real_root):
            return "is a link that leaves the workspace"
        if real.is_dir():
            return "is a link to a directory"
        if not real.is_file():
            return "is not a regular file"
        size_bytes = real.stat().st_size
    except (OSError, RuntimeError) as error:
        return f"cannot be read: {error}"
    if size_bytes > most_bytes:
        return f"is larger than {most_bytes >> 20} MiB"
    return ""
