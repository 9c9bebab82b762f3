"""Finds the files that a task leaves behind, and has them stored."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from fleetest.common.ending import end_tasks
from fleetest.common.errors import FleetestError
from fleetest.common.limits import MAX_ARTIFACT_BYTES, MAX_ARTIFACTS_BYTES
from fleetest.common.regular_files import FileIdentity
from fleetest.common.results import CaseResult
from fleetest.common.states import Verdict
from fleetest.common.tasks import KeepWhen
from fleetest.common.threads import in_thread
from fleetest.worker.assignments import Reporter, TaskSpec
from fleetest.worker.left_files import LeftFiles, StoredFile
from fleetest.worker.ports import Blobs

__all__ = ["ArtifactCollector", "matching_files"]

_MOST_FILES: Final = 10_000
_FILES_AT_ONCE: Final = 200
_INTERVAL: Final = timedelta(seconds=1)
_SETTLED: Final = timedelta(seconds=2)
_REST: Final = 20  # times as long as a look takes


class ArtifactCollector:
    """
    Stores the files that an attempt leaves behind, and reports them: those that nobody has written to for a moment
    while it runs, so that little is left to do at its end, and all others then. One that changed is stored again.

    Nothing here ever raises: what went wrong is reported. A missing artifact fails no test.

    Args:
        root: of the workspace.
        spec: says which files; without any there is nothing to do.
        interval: how often is looked while the attempt runs, at most.
        settled: for how long a file is left alone that was written to.
        most_bytes: of all files together.
        left: what earlier attempts in the same workspace have left; `None` where there is none.
    """

    def __init__(
        self,
        blobs: Blobs,
        root: Path,
        spec: TaskSpec,
        reporter: Reporter,
        *,
        interval: timedelta = _INTERVAL,
        settled: timedelta = _SETTLED,
        most_bytes: int = MAX_ARTIFACTS_BYTES,
        left: LeftFiles | None = None,
    ) -> None:
        self._blobs = blobs
        self._root = root
        self._globs = spec.artifacts
        self._when = spec.artifacts_when
        self._working_directory = spec.working_directory
        self._reporter = reporter
        self._interval = interval
        self._settled = settled
        self._most_bytes = most_bytes
        self._left = left or LeftFiles()
        self._stored = self._left.stored
        self._without_case: set[Path] = set()
        self._watching: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """The attempt runs: begin to store what it leaves. Idempotent."""
        if self._globs and self._when is KeepWhen.ALWAYS and self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="artifacts")

    def hear(self, result: CaseResult) -> None:
        """A case of the attempt has ended; it may tell which files are its own."""
        if self._globs and result.properties:
            self._left.hear(result, self._working_directory)

    async def stop(self) -> None:
        """Store nothing more. Idempotent."""
        if self._watching is not None:
            await end_tasks([self._watching])
            self._watching = None

    async def finish(self, verdict: Verdict) -> None:
        """The attempt is over: store what is left."""
        await self.stop()
        passed = verdict is Verdict.COMPLETED and not self._reporter.failed
        if not self._globs or (passed and self._when is KeepWhen.FAILED):
            return
        found, problems = await in_thread(self._look)
        changed = [path for path, identity in found.items() if not self._is_stored(path, identity)]
        await self._store({path: found[path] for path in changed}, problems)
        self._tell_cases()

    async def _watch(self) -> None:
        took = 0.0
        while True:
            # A large tree is not walked all the time, and what ends within a moment is walked once, at its end.
            await asyncio.sleep(max(self._interval.total_seconds(), _REST * took))
            began = time.monotonic()
            found, _ = await in_thread(self._look)  # problems are told once, at the end
            ripe = [path for path, identity in found.items() if self._is_ripe(path, identity)][:_FILES_AT_ONCE]
            await self._store({path: found[path] for path in ripe}, [])
            took = time.monotonic() - began

    def _look(self) -> tuple[dict[Path, FileIdentity], list[str]]:
        paths, problems = matching_files(self._root, self._globs, MAX_ARTIFACT_BYTES)
        found: dict[Path, FileIdentity] = {}
        total_bytes = left_out = 0
        for path in paths:
            try:
                identity = FileIdentity.of(path.stat())
            except OSError:
                continue  # it was removed meanwhile
            if total_bytes + identity.size_bytes > self._most_bytes:
                left_out += 1
                continue
            total_bytes += identity.size_bytes
            found[path] = identity
        if left_out:
            problems.append(f"{left_out} files are left out: an attempt may leave {self._most_bytes >> 20} MiB in all")
        return found, problems

    def _is_stored(self, path: Path, identity: FileIdentity) -> bool:
        stored = self._stored.get(path)
        return stored is not None and stored.identity == identity

    def _is_ripe(self, path: Path, identity: FileIdentity) -> bool:
        """Whether it has been left alone for so long that it may be complete: longer each time that it was not."""
        if self._is_stored(path, identity):
            return False
        times = self._stored[path].times if path in self._stored else 0
        quiet_ns = time.time_ns() - identity.changed_ns
        return bool(quiet_ns >= self._settled.total_seconds() * 1e9 * 2**times)

    async def _store(self, files: Mapping[Path, FileIdentity], problems: Sequence[str]) -> None:
        try:
            artifacts, unstored = await self._blobs.store(self._root, list(files)) if files else ((), ())
        except FleetestError as error:
            artifacts, unstored = (), (f"artifacts could not be stored: {error.message}",)
        artifacts = [replace(artifact, case_id=self._left.case_of(artifact.path)) for artifact in artifacts]
        for artifact in artifacts:
            path = self._root / artifact.path
            times = self._stored[path].times + 1 if path in self._stored else 1
            self._stored[path] = StoredFile(files[path], times, artifact)
            (self._without_case.discard if artifact.case_id else self._without_case.add)(path)
        if self._watching is not None:
            unstored = ()  # they are tried again
        if artifacts or problems or unstored:
            self._reporter.artifacts(artifacts, [*problems, *unstored])

    def _tell_cases(self) -> None:
        """Of files that were stored before their case had ended."""
        stored = [self._stored[path].artifact for path in sorted(self._without_case)]
        known = [replace(each, case_id=case_id) for each in stored if (case_id := self._left.case_of(each.path))]
        if known:
            self._reporter.artifacts(known, [])


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
