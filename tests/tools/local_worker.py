"""Real, small neighbours of a runner: a workspace that is a directory, blobs that are files, a reporter that remembers."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType
from typing import Any

from fleetest.common.coverage import FileCoverage
from fleetest.common.load import LoadSample
from fleetest.common.results import Artifact, CaseResult, PlannedCase
from fleetest.common.states import ShardKind
from fleetest.worker.assignments import Assignment, AttemptRef, Ended, TaskSpec
from fleetest.worker.common_start import CommonStart
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.executors.process import ProcessExecutor
from fleetest.worker.ownership import Owner
from fleetest.worker.ports import Environment, Session
from fleetest.worker.runners.pytest import PytestRunner

__all__ = [
    "CopiedWorkspaces",
    "DirectoryBlobs",
    "RecordingReporter",
    "assignment",
    "environment",
    "make_spec",
    "opened",
    "run_cases",
    "suite",
]


class CopiedWorkspaces:
    """A workspace digest is the path of a directory."""

    async def synchronise(
        self, workspace_digest: str, target: Path, *, owner: Owner | None = None, shown_by: Path | None = None
    ) -> None:
        await asyncio.to_thread(self._copy, Path(workspace_digest), target)
        for path in (target, *target.rglob("*")) if owner is not None else ():
            os.lchown(path, owner.uid, owner.gid)

    async def forget(self, target: Path) -> None: ...

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        # The target itself stays: it may be a mount point.
        for path in target.iterdir() if target.exists() else ():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if source != Path():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)


class DirectoryBlobs:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def fetch(self, digests: Sequence[str]) -> None: ...

    async def store(self, root: Path, paths: Sequence[Path]) -> tuple[Sequence[Artifact], Sequence[str]]:
        self.directory.mkdir(exist_ok=True)
        return [self._store(root, path) for path in paths], []

    def _store(self, root: Path, path: Path) -> Artifact:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        (self.directory / digest).write_bytes(content)
        return Artifact(path=str(path.relative_to(root)), digest=digest, size_bytes=len(content))


@dataclass
class RecordingReporter:
    """Remembers everything; `changed` is set whenever something comes."""

    results: list[CaseResult] = field(default_factory=list)
    plan: list[PlannedCase] | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    deselected: int = 0
    collection_errors: list[CaseResult] = field(default_factory=list)
    notes: list[str] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    written: bytearray = field(default_factory=bytearray)
    stored: list[Artifact] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    covered: dict[str, FileCoverage] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    start: CommonStart | None = None
    samples: list[LoadSample] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(result.outcome.bad for result in self.results)

    def running(self, notes: Sequence[str] = (), variables: Mapping[str, str] = MappingProxyType({})) -> None:
        assert self.notes is None, "running is said once"
        self.notes, self.variables = list(notes), variables
        self.changed.set()

    async def common_start(self) -> None:
        if self.start is not None:
            await self.start.reached()

    def planned(
        self,
        cases: Sequence[PlannedCase],
        *,
        deselected: int,
        collection_errors: Sequence[CaseResult],
        fingerprints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        assert self.plan is None, "planned is said once"
        self.fingerprints = fingerprints
        self.plan, self.deselected, self.collection_errors = list(cases), deselected, list(collection_errors)
        self.changed.set()

    def result(self, result: CaseResult) -> None:
        assert result.case_id not in {other.case_id for other in self.results}, "a case has one result"
        self.results.append(result)
        self.changed.set()

    def handed_back(self, case_ids: Sequence[str]) -> None:
        self.given += case_ids
        self.answered.set()

    def output(self, content: bytes) -> None:
        self.written += content
        del self.written[: -(4 << 20)]
        self.changed.set()

    def loaded(self, sample: LoadSample) -> None:
        self.samples.append(sample)
        self.changed.set()

    def artifacts(self, artifacts: Sequence[Artifact], problems: Sequence[str]) -> None:
        self.stored += artifacts
        self.problems += problems
        self.changed.set()

    def coverage_measured(self, files: Mapping[str, FileCoverage]) -> None:
        self.covered.update(files)

    coverage_combined = coverage_measured

    @property
    def text(self) -> str:
        return self.written.decode(errors="replace")

    def outcomes(self) -> dict[str, str]:
        return {result.case_id.rpartition("::")[2]: result.outcome.value for result in self.results}

    def named(self, name: str) -> CaseResult:
        return next(result for result in self.results if result.case_id.rpartition("::")[2] == name)

    async def until_handed_back(self) -> None:
        async with asyncio.timeout(60):
            await self.answered.wait()

    async def until(self, text: str) -> None:
        """Wait until the output holds `text`."""
        async with asyncio.timeout(60):
            while text not in self.text:
                self.changed.clear()
                await self.changed.wait()


def make_spec(workspace: Path, **changes: Any) -> TaskSpec:
    """
    Unless `python` names an environment for the test, its pytest loads no plugins of the one that it runs in: these take
    longer than all else of a small session.
    """
    values: dict[str, Any] = {
        "spec_id": "spec",
        "environment_key": "key",
        "task_id": "unit",
        "type": "pytest",
        "project": "sample",
        "workspace_digest": str(workspace),
        "random_seed": 7,
        "start_timeout": timedelta(seconds=120),
        "total_timeout": timedelta(seconds=240),
    }
    if "python" not in changes:
        changes["env"] = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **changes.get("env", {})}
    return TaskSpec(**values | changes)


def assignment(
    spec: TaskSpec, case_ids: Sequence[str] = (), *, token: int = 1, run_id: str = "run", **changes: Any
) -> Assignment:
    kind = ShardKind.EXECUTE if case_ids or spec.type in {"command", "load", "service"} else ShardKind.PLAN
    ref = AttemptRef(run_id=run_id, shard_id=f"{spec.task_id}#{token}", token=token)
    return Assignment(**{"ref": ref, "spec": spec, "kind": kind, "case_ids": tuple(case_ids), **changes})


@asynccontextmanager
async def environment(
    spec: TaskSpec,
    root: Path | None = None,
    *,
    slot: int = 0,
    secrets: Mapping[str, str] | None = None,
    compiled: Path | None = None,
) -> AsyncIterator[Environment]:
    """
    An environment of the process executor, closed at the end.

    Args:
        compiled: where compiled modules are kept, if they are.
    """
    kept = CompiledModules(compiled, max_bytes=1 << 30) if compiled is not None else None
    with tempfile.TemporaryDirectory(prefix="fw") as directory:
        executor = ProcessExecutor(root or Path(directory), CopiedWorkspaces(), python=sys.executable, compiled=kept)
        prepared = await executor.prepare(spec, slot=slot, secrets=secrets or {}, output=lambda _: None)
        try:
            yield prepared
        finally:
            await prepared.close()


async def run_cases(
    session: Session, spec: TaskSpec, case_ids: Sequence[str], **changes: Any
) -> tuple[Ended, RecordingReporter]:
    """One attempt, flushed."""
    reporter = RecordingReporter()
    future = session.submit(assignment(spec, case_ids, **changes), reporter)
    session.flush()
    async with asyncio.timeout(300):
        return await future, reporter


@asynccontextmanager
async def opened(
    spec: TaskSpec, root: Path | None = None, blobs: Path = Path("unused"), compiled: Path | None = None
) -> AsyncIterator[Session]:
    """A pytest session, closed at the end."""
    async with environment(spec, root, compiled=compiled) as place:
        session = await PytestRunner(DirectoryBlobs(blobs)).open(spec, place)
        try:
            yield session
        finally:
            await session.close()


def suite(directory: Path, **files: str) -> Path:
    """A workspace with Python files, named without their suffix."""
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / f"{name}.py").write_text(dedent(content))
    return directory
