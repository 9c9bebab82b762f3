"""Processes that wait for the next run: used when they are as good as new ones, and not otherwise."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from fleetest.common.ids import day_of_run, new_run_id
from fleetest.common.states import Verdict
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Environment
from fleetest.worker.runners.pytest_session import PytestSession
from fleetest.worker.runners.pytest_standby import Standbys
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter, environment, make_spec, run_cases, suite

RUN = new_run_id()
TELLING = """
    import os, sys
    def test_telling():
        print("pid", os.getpid(), os.getcwd(), os.environ["FLEETEST_RUN_ID"], "PYTHONHASHSEED" in os.environ, hash("x"))
"""


def standbys() -> Standbys:
    return Standbys(today=lambda: day_of_run(RUN).isoformat())


@asynccontextmanager
async def session_of(spec: TaskSpec, place: Environment, waiting: Standbys) -> AsyncIterator[PytestSession]:
    session = PytestSession(spec, place, DirectoryBlobs(Path("unused")), waiting)
    try:
        yield session
    finally:
        await session.close()


async def told_by(session: PytestSession, spec: TaskSpec, run_id: str = RUN) -> tuple[RecordingReporter, list[str]]:
    """Runs the one case; answers what it told: its process, directory, run and more."""
    ended, planned = await run_cases(session, spec, (), run_id=run_id)
    assert planned.plan is not None, ended.reason
    ended, reporter = await run_cases(session, spec, [planned.plan[0].case_id], token=2, run_id=run_id)
    assert ended.verdict is Verdict.COMPLETED
    return reporter, reporter.results[0].stdout.split()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/fd").exists() and bool(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - a zombie has none


async def test_next_run_begins_in_the_process_that_waits_and_tells_the_same(tmp_path: Path) -> None:
    spec = make_spec(suite(tmp_path / "w", test_a=TELLING))
    waiting = standbys()

    async with environment(spec) as place:
        async with session_of(spec, place, waiting) as session:
            _, first = await told_by(session, spec)
        await waiting.prepare(place, spec)
        await place.refresh(spec)
        async with session_of(spec, place, waiting) as session:
            _, second = await told_by(session, spec)

    assert second[2:] == first[2:]
    assert second[1] != first[1]


async def test_idle_session_is_exchanged_for_a_process_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetest.worker.runners.pytest_session._IDLE_SECONDS", 0)
    spec = make_spec(suite(tmp_path / "w", test_a=TELLING))
    waiting = standbys()

    async with environment(spec) as place:
        async with session_of(spec, place, waiting) as session:
            _, told = await told_by(session, spec)
            async with asyncio.timeout(60):
                while is_alive(int(told[1])) or place not in waiting:
                    await asyncio.sleep(0.02)
            _, again = await told_by(session, spec)
        await waiting.end(place)

    assert again[2:] == told[2:]
    assert again[1] != told[1]


@pytest.mark.parametrize(
    ("changes", "processes"),
    [
        ({"test_b.py": "def test_b(): pass"}, 1),
        ({"iniconfig.py": ""}, 2),
        ({"sitecustomize.py": ""}, 2),
    ],
    ids=lambda value: next(iter(value), "nothing") if isinstance(value, dict) else "",
)
async def test_process_that_waits_is_not_used_when_a_start_now_would_import_something_else(
    tmp_path: Path, changes: dict[str, str], processes: int
) -> None:
    workspace = suite(tmp_path / "w", test_a=TELLING)
    spec = make_spec(workspace, env={"PYTHONPATH": "."})
    waiting = standbys()

    async with environment(spec) as place:
        await waiting.prepare(place, spec)
        waits = place._processes[0].pid  # type: ignore[attr-defined]
        for path, content in changes.items():
            (place.source / path).parent.mkdir(exist_ok=True)
            (place.source / path).write_text(content)
        async with session_of(spec, place, waiting) as session:
            ended, planned = await run_cases(session, spec, (), run_id=RUN)
            pids = [each.pid for each in place._processes]  # type: ignore[attr-defined]

    assert planned.plan is not None or "pytest cannot be imported" in ended.reason
    assert (waits in pids) == (processes == 1)


@pytest.mark.parametrize("change", [{"working_directory": "below"}, {"env": {"PYTHONHASHSEED": "1"}}])
async def test_process_that_was_started_under_other_conditions_is_ended(tmp_path: Path, change: dict[str, str]) -> None:
    workspace = suite(tmp_path / "w", test_a=TELLING)
    suite(workspace / "below", test_c=TELLING)
    spec = make_spec(workspace)
    other = make_spec(workspace, **change)
    waiting = standbys()

    async with environment(spec) as place:
        await waiting.prepare(place, spec)
        (process,) = place._processes  # type: ignore[attr-defined]
        async with session_of(other, place, waiting) as session:
            ended, _ = await run_cases(session, other, (), run_id=RUN)
        await process.wait()
        await waiting.end(place)

    assert ended.verdict is Verdict.COMPLETED


async def test_process_that_waits_may_be_ended_or_lost(tmp_path: Path) -> None:
    spec = make_spec(suite(tmp_path / "w", test_a=TELLING))
    waiting = standbys()

    async with environment(spec) as place:
        await waiting.prepare(place, spec)
        await waiting.end(place)
        await waiting.prepare(place, spec)
        lost = place._processes[-1]  # type: ignore[attr-defined]
        await lost.stop(timedelta())
        async with asyncio.timeout(60), session_of(spec, place, waiting) as session:
            _, told = await told_by(session, spec)

    assert told[1] != str(lost.pid)


async def test_environment_without_pytest_lets_nothing_wait(tmp_path: Path) -> None:
    spec = make_spec(suite(tmp_path / "w", pytest="raise ImportError('none')"), env={"PYTHONPATH": "."})
    waiting = standbys()

    async with environment(spec) as place:
        await waiting.prepare(place, spec)

        assert place not in waiting
