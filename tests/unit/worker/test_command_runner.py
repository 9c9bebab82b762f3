import asyncio
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.states import Outcome, ShardKind, Verdict
from fleetest.common.tasks import Resources
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.common_start import CommonStart
from fleetest.worker.runners.command import CommandRunner
from tests.tools.local_worker import (
    DirectoryBlobs,
    RecordingReporter,
    assignment,
    environment,
    make_spec,
    run_cases,
    suite,
)

GRACE = timedelta(seconds=5)


@pytest.fixture
def workspace(tmp_path: Path) -> Any:
    return suite(tmp_path / "w")


def command_spec(workspace: Path, **changes: Any) -> Any:
    return make_spec(workspace, type="command", task_id="lint", **changes)


@asynccontextmanager
async def opened(spec: TaskSpec, blobs: Any = Path("unused")) -> Any:
    async with environment(spec) as place:
        session = await CommandRunner(DirectoryBlobs(blobs)).open(spec, place)
        try:
            yield session
        finally:
            await session.close()


async def run(spec: TaskSpec, **changes: Any) -> Any:
    async with opened(spec) as session:
        return await run_cases(session, spec, (), **changes)


@pytest.mark.parametrize(
    ("what", "outcome", "message"),
    [
        ({"shell": "echo fine"}, Outcome.PASSED, ""),
        ({"command": ("true",)}, Outcome.PASSED, ""),
        ({"shell": "echo broken; exit 3"}, Outcome.FAILED, "the command ended with exit code 3"),
        ({"shell": "kill -9 $$"}, Outcome.FAILED, "the command was ended by SIGKILL (Killed)"),
        ({"command": ("no-such-tool", "x")}, Outcome.FAILED, "command not found: no-such-tool"),
        ({"shell": "no-such-tool x"}, Outcome.FAILED, "command not found (exit code 127): /bin/sh: 1: no-such-tool: not found"),
        ({"shell": "touch plain; ./plain"}, Outcome.FAILED, "command not executable (exit code 126): /bin/sh: 1: ./plain: Permission denied"),
        ({}, Outcome.FAILED, "the task has neither a command nor a shell line"),
    ],
)  # fmt: skip
async def test_exit_code_is_the_verdict(workspace: Path, what: Any, outcome: Outcome, message: str) -> None:
    ended, reporter = await run(command_spec(workspace, **what))

    (result,) = reporter.results
    assert (result.case_id, result.outcome, result.message) == ("lint", outcome, message)
    assert ended.verdict is Verdict.COMPLETED
    assert reporter.notes
    if "echo" in what.get("shell", ""):
        assert reporter.text.strip() in {"fine", "broken"}
        assert result.details == ("broken" if outcome.bad else "")


async def test_what_a_command_used_is_measured_over_its_time(workspace: Path) -> None:
    shell = f"{sys.executable} -c 'import time; x = bytearray(100 << 20); time.sleep(0.2)'"

    ended, _ = await run(command_spec(workspace, shell=shell))

    assert ended.usage.peak_memory_bytes > 100 << 20
    assert ended.usage.wall_time > timedelta(seconds=0.2)
    assert 0 < ended.usage.mean_cores < 2


async def test_command_knows_its_shard_and_its_secrets(workspace: Path) -> None:
    spec = command_spec(
        workspace, shell="echo $FLEETEST_RUN_ID $FLEETEST_TASK $FLEETEST_SHARD_INDEX/$FLEETEST_SHARD_TOTAL $KEY"
    )

    _, reporter = await run(spec, shard_index=1, shard_count=3, secrets={"KEY": "k"})

    assert reporter.text == "run lint 1/3 k\n"
    assert reporter.results[0].case_id == "lint 2/3"


REPORT = '<testsuite><testcase classname="a" name="one"/><testcase classname="a" name="two">{}</testcase></testsuite>'


@pytest.mark.parametrize(
    ("body", "exit_code", "outcomes"),
    [
        ("", 0, {"a::one": "passed", "a::two": "passed"}),
        ("<failure message='no'/>", 1, {"a::one": "passed", "a::two": "failed"}),
        ("", 1, {"a::one": "passed", "a::two": "passed", "lint": "failed"}),
        ("<oops", 0, {"a::one": "passed", "out/r.xml": "error"}),
    ],
)
async def test_reports_become_cases(workspace: Path, body: Any, exit_code: int, outcomes: Any) -> None:
    (workspace / "make.sh").write_text(
        f"mkdir out; cat > out/r.xml <<'X'\n{REPORT.format(body)}\nX\nexit {exit_code}\n"
    )
    (workspace / "old.xml").write_text("<testsuite><testcase name='stale'/></testsuite>")
    spec = command_spec(workspace, command=("sh", "make.sh"), reports=("**/*.xml",))

    _, reporter = await run(spec)

    assert {result.case_id: result.outcome.value for result in reporter.results} == outcomes


async def test_command_without_its_report_is_judged_by_its_exit_code(workspace: Path) -> None:
    _, reporter = await run(command_spec(workspace, shell="true", reports=("*.xml",)))

    assert reporter.outcomes() == {"lint": "passed"}


LISTED = {
    "cases": "echo a::one; echo; echo ' a::two '",
    "shell": 'cp "$FLEETEST_CASES_FILE" given.txt; cp report.xml out.xml; exit ${CODE:-0}',
    "reports": ("out.xml",),
}


async def test_cases_of_a_command_are_what_its_listing_prints(workspace: Path) -> None:
    ended, reporter = await run(command_spec(workspace, **LISTED), kind=ShardKind.PLAN)

    assert [case.case_id for case in reporter.plan] == ["a::one", "a::two"]
    assert (reporter.results, ended.verdict) == ([], Verdict.COMPLETED)


@pytest.mark.parametrize(
    ("line", "verdict", "reason"),
    [
        ("echo sorry >&2; exit 4", Verdict.FAILED, "`cases`: the command ended with exit code 4"),
        ("echo a; echo a", Verdict.FAILED, "`cases` printed 'a' twice, the second time in line 2"),
        ("printf %1001s x | tr ' ' x", Verdict.FAILED, "`cases` printed a name of 1001 characters in line 1"),
        ('rm "$FLEETEST_CASES_FILE"; ln -s /etc/passwd "$FLEETEST_CASES_FILE"', Verdict.ERRORED, "Too many levels"),
    ],
)
async def test_listing_that_says_no_cases_fails_the_plan(
    workspace: Path, line: str, verdict: Verdict, reason: str
) -> None:
    ended, reporter = await run(command_spec(workspace, cases=line, shell="true"), kind=ShardKind.PLAN)

    assert (reporter.plan, ended.verdict) == (None, verdict)
    assert reason in ended.reason


@pytest.mark.parametrize(
    ("report", "code", "outcomes", "verdict"),
    [
        (REPORT.format(""), 0, {"a::one": "passed", "a::two": "passed"}, Verdict.COMPLETED),
        (REPORT.format("<failure/>"), 1, {"a::one": "passed", "a::two": "failed"}, Verdict.COMPLETED),
        (REPORT.format("").replace("two", "three"), 0, {"a::one": "passed", "a::two": "error"}, Verdict.COMPLETED),
        (REPORT.format(""), 1, {"a::one": "passed", "a::two": "passed"}, Verdict.FAILED),
        ("", 0, {"a::one": "passed", "a::two": "passed"}, Verdict.COMPLETED),
        ("", 1, {"a::one": "failed", "a::two": "failed"}, Verdict.COMPLETED),
    ],
)
async def test_each_case_that_a_command_is_given_has_a_result(
    workspace: Path, report: str, code: int, outcomes: Any, verdict: Verdict
) -> None:
    if report:
        (workspace / "report.xml").write_text(report)
    spec = command_spec(workspace, **LISTED, env={"CODE": str(code)}, artifacts=("given.txt",))

    async with opened(spec, blobs=workspace.parent / "blobs") as session:
        ended, reporter = await run_cases(session, spec, ("a::one", "a::two"))

    assert {result.case_id: result.outcome.value for result in reporter.results} == outcomes
    assert (ended.verdict, ended.extra) == (verdict, ("a::three",) if "three" in report else ())
    (given,) = reporter.stored
    assert (workspace.parent / "blobs" / given.digest).read_text() == "a::one\na::two\n"


async def test_artifacts_are_stored(tmp_path: Path, workspace: Path) -> None:
    spec = command_spec(
        workspace, shell="mkdir out; echo x > out/a.txt; ln -s /etc/passwd out/b.txt", artifacts=("out",)
    )

    async with opened(spec, tmp_path / "blobs") as session:
        _, reporter = await run_cases(session, spec, ())

    assert [artifact.path for artifact in reporter.stored] == ["out/a.txt"]
    assert reporter.problems == ["out/b.txt: is a link that leaves the workspace"]


async def test_defect_of_ours_ends_its_attempt_and_no_other(workspace: Path) -> None:
    spec = command_spec(workspace, shell="touch out", artifacts=("out",))

    async with opened(spec, blobs=None) as session:  # nothing can be stored, and nobody thought of that
        broken, _ = await run_cases(session, spec, (), token=1)
        again, _ = await run_cases(session, spec, (), token=2)

    assert (broken.verdict, again.verdict) == (Verdict.ERRORED, Verdict.ERRORED)
    assert "internal error: AttributeError" in broken.reason


@pytest.mark.parametrize(
    ("limit", "verdict", "message"),
    [
        ("silence_timeout", Verdict.COMPLETED, "its silence limit of 0:00:01 has passed"),
        ("total_timeout", Verdict.TIMED_OUT, "its total limit of 0:00:01 has passed"),
    ],
)
async def test_limits_end_the_command(workspace: Path, limit: str, verdict: Verdict, message: str) -> None:
    spec = command_spec(workspace, shell="echo begun; sleep 100", **{limit: timedelta(seconds=1)})

    ended, reporter = await run(spec)

    (result,) = reporter.results
    assert (result.outcome, result.message, result.details) == (Outcome.TIMED_OUT, message, "begun")
    assert ended.verdict is verdict


async def test_output_puts_off_the_silence_limit(workspace: Path) -> None:
    spec = command_spec(
        workspace, shell="for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done", silence_timeout=timedelta(seconds=1)
    )

    _, reporter = await run(spec)

    assert reporter.outcomes() == {"lint": "passed"}


async def test_endless_output_is_bounded_by_the_total_limit(workspace: Path) -> None:
    spec = command_spec(workspace, command=("yes",), total_timeout=timedelta(seconds=1))

    ended, reporter = await run(spec)

    assert ended.verdict is Verdict.TIMED_OUT
    assert len(reporter.results[0].details) <= 32 << 10


async def test_command_over_its_memory_limit_says_so(workspace: Path) -> None:
    spec = command_spec(
        workspace,
        command=("python3", "-c", "import time; x = bytearray(300 << 20); time.sleep(60)"),
        limits=Resources(memory_bytes=100 << 20),
    )

    _, reporter = await run(spec)

    assert reporter.results[0].outcome is Outcome.FAILED
    assert reporter.results[0].message.startswith("out of memory")


async def test_running_and_waiting_commands_can_be_cancelled(workspace: Path) -> None:
    spec = command_spec(workspace, shell="echo begun; sleep 100")

    async with opened(spec) as session:
        hungry = asyncio.Event()
        session.on_hungry(hungry.set)
        running, waiting = RecordingReporter(), RecordingReporter()
        first, second = assignment(spec), assignment(spec, token=2)
        first_future, second_future = session.submit(first, running), session.submit(second, waiting)
        await running.until("begun")
        assert session.backlog == 1
        assert hungry.is_set()
        async with asyncio.timeout(60):
            while session.sample() is None:  # its output may come before whoever started it knows it
                await asyncio.sleep(0)
        session.flush()
        await session.stop(second.ref, reason="no need", grace=GRACE, finish_running_case=True)
        await session.stop(first.ref, reason="superseded", grace=GRACE, finish_running_case=False)
        await session.stop(first.ref, reason="again", grace=GRACE, finish_running_case=False)
        assert session.sample() is None

    assert (first_future.result().verdict, first_future.result().reason) == (Verdict.CANCELLED, "superseded")
    assert (second_future.result().verdict, second_future.result().reason) == (Verdict.CANCELLED, "no need")
    assert running.results == waiting.results == []


async def test_gently_stopped_command_ends_as_itself(workspace: Path) -> None:
    spec = command_spec(workspace, shell="echo begun; sleep 0.5")

    async with opened(spec) as session:
        reporter = RecordingReporter()
        job = assignment(spec)
        future = session.submit(job, reporter)
        await reporter.until("begun")
        await session.stop(job.ref, reason="drain", grace=GRACE, finish_running_case=True)

    assert future.result().verdict is Verdict.COMPLETED
    assert reporter.outcomes() == {"lint": "passed"}


async def test_closed_session_cancels_what_it_had_and_what_comes(workspace: Path) -> None:
    spec = command_spec(workspace, shell="echo begun; sleep 100")
    reporter = RecordingReporter()

    async with opened(spec) as session:
        future = session.submit(assignment(spec), reporter)
        await reporter.until("begun")
    late = session.submit(assignment(spec, token=2), RecordingReporter())

    assert future.result().verdict is Verdict.CANCELLED
    assert late.result().verdict is Verdict.CANCELLED


async def test_command_of_a_gang_begins_when_the_master_says_so(workspace: Path) -> None:
    spec = command_spec(workspace, shell="echo begun", gang=True)

    async with opened(spec) as session:
        reporter = RecordingReporter(start=CommonStart(timedelta(minutes=1)))
        future = session.submit(assignment(spec), reporter)
        await reporter.changed.wait()
        assert (reporter.notes is not None, reporter.text) == (True, "")
        assert reporter.start is not None
        reporter.start.set(timedelta(milliseconds=1))
        reporter.start.set(timedelta(days=1))
        await asyncio.wait([future])

    assert future.result().verdict is Verdict.COMPLETED
    assert (reporter.text, reporter.outcomes()) == ("begun\n", {"lint": "passed"})


@pytest.mark.parametrize("gently", [False, True])
async def test_command_that_waits_for_its_gang_is_cancelled_before_it_begins(workspace: Path, gently: bool) -> None:  # noqa: FBT001 - a parameter
    spec = command_spec(workspace, shell="echo begun", gang=True)

    async with opened(spec) as session:
        reporter = RecordingReporter(start=CommonStart(None))
        job = assignment(spec)
        future = session.submit(job, reporter)
        await reporter.changed.wait()
        await session.stop(job.ref, reason="another was lost", grace=GRACE, finish_running_case=gently)

    assert (future.result().verdict, future.result().reason) == (Verdict.CANCELLED, "another was lost")
    assert reporter.text == ""


async def test_command_whose_gang_never_begins_times_out(workspace: Path) -> None:
    spec = command_spec(workspace, shell="echo begun", gang=True, start_timeout=timedelta(milliseconds=10))

    async with opened(spec) as session:
        future = session.submit(assignment(spec), RecordingReporter(start=CommonStart(spec.start_timeout)))
        await asyncio.wait([future])

    assert future.result().verdict is Verdict.TIMED_OUT
    assert "the others of its gang were not ready" in future.result().reason
