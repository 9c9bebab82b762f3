import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import KeepWhen
from fleetest.worker.artifacts import ArtifactCollector, matching_files
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.left_files import LeftFiles
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter


def test_globs_find_files_and_whole_directories(tmp_path: Path) -> None:
    for name in ("a.txt", "b.log", "out/x.txt", "out/deep/y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    paths, problems = matching_files(tmp_path, ["*.txt", "out", "out/**/*.txt", "nothing"], 10)

    assert [str(path.relative_to(tmp_path)) for path in paths] == ["a.txt", "out/deep/y.txt", "out/x.txt"]
    assert problems == []


def test_nothing_outside_of_the_workspace_is_answered(tmp_path: Path) -> None:
    root = tmp_path / "w"
    root.mkdir()
    (tmp_path / "secret").write_text("s")
    (root / "large").write_text("x" * 20)
    (root / "link").symlink_to("../secret")
    (root / "directory").symlink_to("..")
    (root / "inner").symlink_to("empty")
    (root / "empty").mkdir()
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")

    paths, problems = matching_files(root, ["*", "../*", "/etc/*", "directory/*", ""], 10)

    assert paths == []
    told = "\n".join(problems)
    for problem in (
        "../*: leaves the workspace",
        "/etc/*: leaves the workspace",
        "link: is a link that leaves the workspace",
        "directory: is a link that leaves the workspace",
        "directory/secret: is a link that leaves the workspace",
        "inner: is a link to a directory",
        "dangling: cannot be read",
        "loop: cannot be read",
        "pipe: is not a regular file",
        "large: is larger than 0 MiB",
    ):
        assert problem in told


async def test_blob_store_that_fails_is_a_problem_of_the_artifacts_only(tmp_path: Path) -> None:
    class Broken(DirectoryBlobs):
        async def store(self, root: Path, paths: Any) -> Any:
            raise DependencyUnavailable("the master does not answer")

    (tmp_path / "a").touch()
    reporter = RecordingReporter()

    await ArtifactCollector(Broken(tmp_path / "blobs"), tmp_path, spec("a"), reporter).finish(Verdict.COMPLETED)

    assert reporter.problems == ["artifacts could not be stored: the master does not answer"]


def spec(glob: str, when: KeepWhen = KeepWhen.ALWAYS, **settings: Any) -> TaskSpec:
    return TaskSpec(
        spec_id="s",
        environment_key="e",
        task_id="t",
        type="command",
        project="p",
        artifacts=(glob,),
        artifacts_when=when,
        **settings,
    )


def collector(
    tmp_path: Path, reporter: RecordingReporter, when: KeepWhen = KeepWhen.ALWAYS, **settings: Any
) -> ArtifactCollector:
    root = tmp_path / "w"
    root.mkdir(exist_ok=True)
    moment = timedelta(milliseconds=1)
    return ArtifactCollector(
        DirectoryBlobs(tmp_path / "blobs"),
        root,
        spec("*.log", when),
        reporter,
        interval=moment,
        settled=moment,
        **settings,
    )


async def until_stored(reporter: RecordingReporter, count: int) -> None:
    async with asyncio.timeout(20):
        while len(reporter.stored) < count:
            reporter.changed.clear()
            await reporter.changed.wait()


async def test_file_is_stored_while_the_attempt_runs_and_not_again_at_its_end(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    collecting = collector(tmp_path, reporter)
    (tmp_path / "w" / "a.log").write_text("a")
    collecting.watch()

    await until_stored(reporter, 1)
    await collecting.finish(Verdict.COMPLETED)

    assert [artifact.path for artifact in reporter.stored] == ["a.log"]
    assert reporter.problems == []


async def test_file_that_changed_after_it_was_stored_is_stored_again(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    collecting = collector(tmp_path, reporter)
    (tmp_path / "w" / "a.log").write_text("a")
    collecting.watch()
    await until_stored(reporter, 1)

    (tmp_path / "w" / "a.log").write_text("a and more")
    await collecting.finish(Verdict.COMPLETED)

    assert reporter.stored[0].size_bytes == 1
    assert reporter.stored[-1].size_bytes == 10


def case(case_id: str, **properties: str) -> CaseResult:
    return CaseResult(case_id=case_id, outcome=Outcome.PASSED, duration=timedelta(), properties=properties)


async def test_files_that_a_case_names_are_its_own(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    root = tmp_path / "w"
    for name in ("web/pw/one/trace.zip", "web/pw/one/shot-1.png", "web/named.txt", "web/other.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    collecting = ArtifactCollector(
        DirectoryBlobs(tmp_path / "blobs"), root, spec("web", working_directory="web"), reporter
    )

    collecting.hear(case("one", playwright_trace="pw/one/trace.zip"))
    collecting.hear(case("two", log="./named.txt", note="other.txt is not meant", far="../../x"))
    await collecting.finish(Verdict.COMPLETED)

    assert {artifact.path: artifact.case_id for artifact in reporter.stored} == {
        "web/pw/one/trace.zip": "one",
        "web/pw/one/shot-1.png": "one",
        "web/named.txt": "two",
        "web/other.txt": "",
    }


async def test_whose_a_file_is_that_was_stored_before_its_case_ended_is_told_afterwards(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    collecting = collector(tmp_path, reporter)
    (tmp_path / "w" / "a.log").write_text("a")
    collecting.watch()
    await until_stored(reporter, 1)

    collecting.hear(case("one", log="a.log"))
    await collecting.finish(Verdict.COMPLETED)

    assert [artifact.case_id for artifact in reporter.stored] == ["", "one"]


async def test_what_an_earlier_attempt_in_the_workspace_has_stored_is_not_the_next_ones(tmp_path: Path) -> None:
    left, first, second = LeftFiles(), RecordingReporter(), RecordingReporter()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.log").write_text("a")
    (tmp_path / "w" / "grows.log").write_text("1")
    await collector(tmp_path, first, left=left).finish(Verdict.COMPLETED)

    (tmp_path / "w" / "b.log").write_text("b")
    (tmp_path / "w" / "grows.log").write_text("1, 2")
    await collector(tmp_path, second, left=left).finish(Verdict.COMPLETED)

    assert [artifact.path for artifact in first.stored] == ["a.log", "grows.log"]
    assert [artifact.path for artifact in second.stored] == ["b.log", "grows.log"]


async def test_more_than_an_attempt_may_leave_is_left_out_and_told(tmp_path: Path) -> None:
    reporter = RecordingReporter()
    collecting = collector(tmp_path, reporter, most_bytes=3)
    for name in ("a.log", "b.log", "c.log"):
        (tmp_path / "w" / name).write_text("xx")

    await collecting.finish(Verdict.COMPLETED)

    assert [artifact.path for artifact in reporter.stored] == ["a.log"]
    assert reporter.problems == ["2 files are left out: an attempt may leave 0 MiB in all"]


async def test_store_that_fails_while_the_attempt_runs_is_asked_again_at_its_end(tmp_path: Path) -> None:
    class BrokenAtFirst(DirectoryBlobs):
        failed = asyncio.Event()

        async def store(self, root: Path, paths: Any) -> Any:
            if self.failed.is_set():
                return await super().store(root, paths)
            self.failed.set()
            raise DependencyUnavailable("the master does not answer")

    reporter = RecordingReporter()
    collecting = collector(tmp_path, reporter)
    blobs = collecting._blobs = BrokenAtFirst(tmp_path / "blobs")
    (tmp_path / "w" / "a.log").write_text("a")
    collecting.watch()
    async with asyncio.timeout(20):
        await blobs.failed.wait()

    await collecting.finish(Verdict.COMPLETED)

    assert [artifact.path for artifact in reporter.stored] == ["a.log"]
    assert reporter.problems == []


@pytest.mark.parametrize(
    ("outcome", "verdict", "kept"),
    [
        (Outcome.PASSED, Verdict.COMPLETED, []),
        (Outcome.FAILED, Verdict.COMPLETED, ["a.log"]),
        (Outcome.PASSED, Verdict.TIMED_OUT, ["a.log"]),
    ],
)
async def test_only_attempts_that_failed_leave_files_when_the_task_says_so(
    tmp_path: Path, outcome: Outcome, verdict: Verdict, kept: list[str]
) -> None:
    reporter = RecordingReporter()
    collecting = collector(tmp_path, reporter, KeepWhen.FAILED)
    (tmp_path / "w" / "a.log").write_text("a")
    collecting.watch()
    reporter.result(CaseResult(case_id="case", outcome=outcome))

    await collecting.finish(verdict)

    assert [artifact.path for artifact in reporter.stored] == kept
