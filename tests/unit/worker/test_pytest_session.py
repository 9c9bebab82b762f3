import asyncio
import venv
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import psutil
import pytest

from fleetest.common.states import Outcome, Verdict
from fleetest.common.tasks import Resources
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Session
from tests.tools.local_worker import RecordingReporter, assignment, make_spec, opened, run_cases, suite

GRACE = timedelta(seconds=5)
AMPLE_START = timedelta(seconds=8)  # more than a session takes to begin, on a busy machine too


async def plan(session: Session, spec: TaskSpec) -> Any:
    ended, reporter = await run_cases(session, spec, ())
    assert reporter.plan is not None, ended.reason + reporter.text
    return ended, [case.case_id for case in reporter.plan]


async def run_all(workspace: Path, **changes: Any) -> Any:
    spec = make_spec(workspace, **changes)
    async with opened(spec) as session:
        _, case_ids = await plan(session, spec)
        return await run_cases(session, spec, case_ids, token=2)


async def test_planned_cases_carry_place_and_group(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import functools, pytest
            @pytest.mark.xdist_group("db")
            def test_one(): pass
            @pytest.mark.parametrize("n", [1, 2])
            def test_two(n): pass
            def twice(test): return functools.wraps(test)(lambda: test() or test())
            @twice
            def test_three(): pass
        """,
    )
    spec = make_spec(workspace, command=("-k", "not 2"))

    async with opened(spec) as session:
        ended, reporter = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.COMPLETED
    assert reporter.plan is not None
    assert [(case.case_id, case.file, case.line, case.group) for case in reporter.plan] == [
        ("test_a.py::test_one", "test_a.py", 3, "db"),
        ("test_a.py::test_two[1]", "test_a.py", 5, ""),
        ("test_a.py::test_three", "test_a.py", 8, ""),
    ]
    assert reporter.deselected == 1
    assert reporter.notes is not None
    assert "isolation is weak" in reporter.notes[0]


async def test_plan_and_cases_share_one_collection(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        conftest="def pytest_collection_finish(): open('collections', 'a').write('x')",
        test_a="def test_a(): assert open('collections').read() == 'x'",
    )

    ended, reporter = await run_all(workspace)

    assert ended.verdict is Verdict.COMPLETED
    assert reporter.outcomes() == {"test_a": "passed"}
    assert ended.usage.peak_memory_bytes > 0
    assert ended.usage.wall_time > timedelta()


async def test_fixtures_stay_alive_between_attempts_until_flushed(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import pytest
            ups = []
            @pytest.fixture(scope="module")
            def up():
                ups.append(1)
                yield len(ups)
            def test_1(up): assert up == 1
            def test_2(up): assert up == 1
            def test_3(up): assert up == 2
        """,
    )
    spec = make_spec(workspace)

    async with opened(spec) as session:
        first, second, third = RecordingReporter(), RecordingReporter(), RecordingReporter()
        ended = session.submit(assignment(spec, ["test_a.py::test_1"], token=1), first)
        while not first.notes:
            first.changed.clear()
            await first.changed.wait()
        backlog_of_held_case = session.backlog
        held = ended.done()
        session.submit(assignment(spec, ["test_a.py::test_2"], token=2), second)
        await ended
        session.flush()
        while not second.results:
            second.changed.clear()
            await second.changed.wait()
        await run_cases(session, spec, ["test_a.py::test_3"], token=3)
        _, third = await run_cases(session, spec, ["test_a.py::test_3"], token=4)

    assert not held
    assert backlog_of_held_case == 1
    assert first.outcomes() == {"test_1": "passed"}
    assert second.outcomes() == {"test_2": "passed"}
    assert third.named("test_3").message == "assert 3 == 2"


async def test_session_is_not_hungry_behind_a_slow_case(tmp_path: Path) -> None:
    """What it asked for early would wait here, while another slot may be idle."""
    go, begun = tmp_path / "go", tmp_path / "begun"
    slow = f"""
        import time, pathlib
        def test_1():
            pathlib.Path({str(begun)!r}).touch()
            while not pathlib.Path({str(go)!r}).exists():
                time.sleep(0.01)
        def test_2(): pass
        """
    workspace = suite(tmp_path / "w", test_a=dedent(slow))
    spec = make_spec(workspace)

    async with opened(spec) as session:
        hungry = asyncio.Event()
        session.on_hungry(hungry.set)
        future = session.submit(assignment(spec, ["test_a.py::test_1", "test_a.py::test_2"]), RecordingReporter())
        async with asyncio.timeout(60):
            while not begun.exists():
                await asyncio.sleep(0.01)
        asked_early = hungry.is_set()
        go.touch()
        await asyncio.wait_for(hungry.wait(), 60)
        session.flush()
        await future

    assert not asked_early


async def test_session_says_when_it_is_hungry(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_1(): pass\ndef test_2(): pass\ndef test_3(): pass")
    spec = make_spec(workspace)

    async with opened(spec) as session:
        hungry = asyncio.Event()
        session.on_hungry(hungry.set)
        reporter = RecordingReporter()
        future = session.submit(assignment(spec, [f"test_a.py::test_{n}" for n in (1, 2, 3)]), reporter)
        await asyncio.wait_for(hungry.wait(), 60)
        assert session.backlog == 1
        session.flush()
        await future

    assert len(reporter.results) == 3


CRASHES = {
    "os._exit(3)": "the interpreter ended with exit code 3 in the middle",
    "os.kill(os.getpid(), signal.SIGSEGV)": "the interpreter was ended by SIGSEGV (Segmentation fault)",
    "os.abort()": "the interpreter was ended by SIGABRT (Aborted)",
    "os.kill(os.getpid(), signal.SIGKILL)": "the interpreter was ended by SIGKILL: by the test itself, or the machine was out of memory",
    "os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)": "the test's process was killed through its parent",
    "os.closerange(3, 65536)": "a test closed the descriptor over which its session reports",
    "[os.write(fd, b'garbage\\n') for fd in range(900, 910) if is_open(fd)]": "something wrote into the session's own channel: Expecting value: line 1 column 1 (char 0)",
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "statements"),
    [
        (("-s",), [statement for statement in CRASHES if "closerange" not in statement]),
        ((), [statement for statement in CRASHES if "closerange" in statement]),
    ],
    ids=["output as it comes", "output captured"],
)
async def test_a_crash_fails_its_case_and_the_rest_goes_on_in_a_new_session(
    tmp_path: Path, arguments: tuple[str, ...], statements: list[str]
) -> None:
    crashes = "".join(
        f"""
            def test_crash_{number}():
                print("last words", flush=True)
                {statement}
                time.sleep(60)
            def test_after_{number}(): pass
        """
        for number, statement in enumerate(statements)
    )
    workspace = suite(
        tmp_path / "w",
        test_a=f"""
            import os, signal, time
            def is_open(fd):
                try: return os.fstat(fd)
                except OSError: return None
            def test_before(): pass
        {crashes}
        """,
    )

    ended, reporter = await run_all(workspace, command=arguments)

    assert reporter.outcomes() == {
        "test_before": "passed",
        **{f"test_crash_{number}": "failed" for number in range(len(statements))},
        **{f"test_after_{number}": "passed" for number in range(len(statements))},
    }
    failed = [reporter.named(f"test_crash_{number}") for number in range(len(statements))]
    assert [result.message for result in failed] == [CRASHES[statement] for statement in statements]
    assert {result.file for result in failed} == {"test_a.py"}
    assert ended.verdict is Verdict.COMPLETED


async def test_case_after_the_one_that_killed_its_parent_is_not_blamed(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import os, signal, threading, time
            begun = threading.Event()
            killers = []
            def kill():
                begun.wait()
                os.kill(os.getppid(), signal.SIGKILL)
            def test_before(): pass
            def test_killer():
                killers.append(threading.Thread(target=kill, daemon=True))
                killers[0].start()
            def test_innocent():
                begun.set()
                if killers: time.sleep(60)
            def test_after(): pass
        """,
    )

    ended, reporter = await run_all(workspace)

    assert reporter.outcomes() == dict.fromkeys(("test_before", "test_killer", "test_innocent", "test_after"), "passed")
    assert ended.verdict is Verdict.COMPLETED


async def test_a_crash_among_many_quick_cases_is_not_blamed_on_another(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import os, pytest
            @pytest.mark.parametrize("n", range(120))
            def test_quick(n):
                print(f"word {n}", flush=True)
                assert n != 30
                if n == 60: os._exit(1)
        """,
    )

    ended, reporter = await run_all(workspace, command=("-s",))

    assert [result.case_id for result in reporter.results] == [f"test_a.py::test_quick[{n}]" for n in range(120)]
    bad = [result.case_id for result in reporter.results if result.outcome.bad]
    assert bad == ["test_a.py::test_quick[30]", "test_a.py::test_quick[60]"]
    assert "word 60" in reporter.named("test_quick[60]").details
    assert ended.verdict is Verdict.COMPLETED


async def test_session_that_crashes_in_every_case_comes_to_its_end(tmp_path: Path) -> None:
    body = "import os\n" + "".join(f"def test_{n}(): os._exit({n})\n" for n in range(4))
    workspace = suite(tmp_path / "w", test_a=body)

    ended, reporter = await run_all(workspace)

    assert [result.outcome for result in reporter.results] == [Outcome.FAILED] * 4
    assert ended.verdict is Verdict.COMPLETED


async def test_crash_while_collecting_ends_the_attempt(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="import os; os._exit(9)")
    spec = make_spec(workspace)

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert ended.reason == "pytest ended with exit code 9 before it had collected its cases"


async def test_hanging_case_times_out_with_its_stacks_and_the_rest_goes_on(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import time
            def test_before(): pass
            def hang_here(): time.sleep(100)
            def test_hangs(): hang_here()
            def test_after(): pass
        """,
    )

    ended, reporter = await run_all(workspace, silence_timeout=timedelta(seconds=1))

    assert reporter.outcomes() == {"test_before": "passed", "test_hangs": "timed_out", "test_after": "passed"}
    assert "in hang_here" in reporter.named("test_hangs").details
    assert ended.verdict is Verdict.COMPLETED


async def test_output_counts_as_a_word(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import time
            def test_talks():
                for _ in range(8):
                    time.sleep(0.25)
                    print("still here", flush=True)
        """,
    )

    _, reporter = await run_all(workspace, silence_timeout=timedelta(seconds=1), command=("-s",))

    assert reporter.outcomes() == {"test_talks": "passed"}
    assert reporter.text.count("still here") == 8


async def test_total_limit_ends_the_attempt(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="import time\ndef test_slow(): time.sleep(100)\ndef test_never(): pass")

    ended, reporter = await run_all(workspace, total_timeout=AMPLE_START)

    assert ended.verdict is Verdict.TIMED_OUT
    assert "2 cases had not ended" in ended.reason
    assert reporter.outcomes() == {"test_slow": "timed_out"}


async def test_collection_that_hangs_runs_into_the_start_limit(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="import time; time.sleep(100)")
    spec = make_spec(workspace, start_timeout=AMPLE_START)

    async with opened(spec) as session:
        ended, reporter = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.TIMED_OUT
    assert "had not collected" in ended.reason
    assert "test_a.py" in reporter.text


HOSTILE = """
    import json, os, signal, socket, subprocess, sys, time, builtins, threading
    import pytest

    def test_fork_returns_into_pytest():
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0

    def test_fork_fails_in_child():
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] != 0
        else:
            raise ValueError("in the child")

    def test_chdir(): os.chdir("/")

    def test_replaces_stdout():
        sys.stdout = sys.stderr = None

    def test_patches_what_the_session_needs():
        for module, name in [(json, "dumps"), (time, "time"), (os, "write"), (os, "read"), (os, "getpid"), (socket, "socket")]:
            def broken(*args, **kwargs): raise RuntimeError("patched")
            original = getattr(module, name)
            setattr(module, name, broken)
            LATER.append((module, name, original))

    LATER = []

    def test_restores():
        for module, name, original in LATER:
            setattr(module, name, original)

    def test_signal_handlers():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)

    def test_signals_its_parent():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getppid(), number)

    def test_daemonises():
        subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); open('daemon.pid.new', 'w').write(str(os.getpid())); os.rename('daemon.pid.new', 'daemon.pid'); time.sleep(300)"], cwd=os.path.dirname(__file__), env={})
        while not os.path.exists(os.path.join(os.path.dirname(__file__), "daemon.pid")): time.sleep(0.01)

    def test_without_newline(): sys.__stdout__.write("no newline")

    def test_much_output(): sys.__stdout__.write("x" * 30_000_000)

    def test_environment(): assert "FLEETEST_RUN_ID" in os.environ and "PYTHONHASHSEED" not in os.environ

    def test_exit_in_thread():
        thread = threading.Thread(target=sys.exit); thread.start(); thread.join()

    def test_arguments(): assert sys.argv[0].endswith("pytest") and not any("launch" in part or "/c/0" in part for part in sys.path)
"""


async def test_hostile_cases_do_not_disturb_the_session(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_hostile=HOSTILE)
    spec = make_spec(workspace)

    async with opened(spec, tmp_path / "root") as session:
        _, case_ids = await plan(session, spec)
        ended, reporter = await run_cases(session, spec, case_ids, token=2)
        (pid_file,) = (tmp_path / "root").rglob("daemon.pid")
        daemon = psutil.Process(int(pid_file.read_text()))
        assert daemon.is_running()

    assert {name: outcome for name, outcome in reporter.outcomes().items() if outcome != "passed"} == {}
    assert len(reporter.results) == len(case_ids)
    assert ended.verdict is Verdict.COMPLETED
    assert not daemon.is_running()


async def test_long_texts_are_cut_and_stay_valid(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            def test_a():
                raise ValueError("begin" + "\\udcff" * 200_000 + "end")
        """,
    )

    _, reporter = await run_all(workspace)

    (result,) = reporter.results
    assert result.truncated
    assert result.message.startswith("ValueError: begin\\udcff")
    assert "cut out" in result.details
    assert "\\udcffend" in result.details
    assert len(result.details.encode()) <= 64 << 10


@pytest.mark.parametrize(
    ("statement", "reason"),
    [("pytest.exit('enough')", "pytest.exit: enough"), ("raise KeyboardInterrupt", "KeyboardInterrupt")],
)
async def test_a_case_that_stops_pytest_ends_the_attempt(tmp_path: Path, statement: str, reason: str) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a=f"import pytest\ndef test_1(): pass\ndef test_2(): {statement}\ndef test_3(): pass",
    )
    spec = make_spec(workspace)

    async with opened(spec) as session:
        _, case_ids = await plan(session, spec)
        ended, reporter = await run_cases(session, spec, case_ids, token=2)
        _, again = await run_cases(session, spec, case_ids[2:], token=3)

    assert (ended.verdict, ended.reason) == (Verdict.FAILED, reason)
    assert reporter.outcomes() == {"test_1": "passed", "test_2": "failed"}
    assert again.outcomes() == {"test_3": "passed"}


async def test_maxfail_of_the_projects_own_options_ends_the_attempt(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_1(): assert 0\ndef test_2(): pass")

    ended, reporter = await run_all(workspace, command=("-x",))

    assert (ended.verdict, ended.reason) == (Verdict.FAILED, "stopping after 1 failures")
    assert reporter.outcomes() == {"test_1": "failed"}


USAGE = {
    ("--no-such-option",): "unrecognized arguments: --no-such-option",
    ("nowhere.py",): "file or directory not found: nowhere.py",
    ("-k", "nothing_is_called_so"): "no tests ran: pytest collected nothing, 1 deselected",
    ("-p", "no_such_plugin"): "No module named 'no_such_plugin'",
}


@pytest.mark.parametrize(("arguments", "reason"), USAGE.items())
async def test_wrong_use_of_pytest_fails_with_its_own_words(tmp_path: Path, arguments: Any, reason: str) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_a(): pass")
    spec = make_spec(workspace, command=arguments)

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert reason in ended.reason


async def test_broken_conftest_fails_with_pytests_own_words(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", conftest="import nope", test_a="def test_a(): pass")
    spec = make_spec(workspace)

    async with opened(spec) as session:
        ended, reporter = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert "No module named 'nope'" in ended.reason
    assert "conftest.py:1" in reporter.text


async def test_interpreter_without_pytest_is_named(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    workspace = suite(tmp_path / "w", test_a="def test_a(): pass")
    spec = make_spec(workspace, python=str(tmp_path / "bare/bin/python"))

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert "pytest cannot be imported" in ended.reason


async def test_missing_working_directory_is_named(tmp_path: Path) -> None:
    spec = make_spec(suite(tmp_path / "w"), working_directory="nowhere")

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert "the working directory nowhere does not exist" in ended.reason


@pytest.mark.parametrize(
    ("arguments", "planned"),
    [((), []), (("--continue-on-collection-errors",), ["test_b.py::test_b"]), (("-x",), [])],
)
async def test_collection_errors_are_reported_as_pytest_treats_them(
    tmp_path: Path, arguments: Any, planned: Any
) -> None:
    workspace = suite(tmp_path / "w", test_a="import nope", test_b="def test_b(): pass")
    spec = make_spec(workspace, command=arguments)

    async with opened(spec) as session:
        ended, reporter = await run_cases(session, spec, ())

    (error,) = reporter.collection_errors
    assert (error.case_id, error.outcome, error.file) == ("test_a.py", Outcome.ERROR, "test_a.py")
    assert error.message == "ModuleNotFoundError: No module named 'nope'"
    assert [case.case_id for case in reporter.plan or ()] == planned
    assert ended.verdict is Verdict.COMPLETED


async def test_module_that_skips_itself_is_a_case(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="import pytest\npytest.skip('not here', allow_module_level=True)")

    ended, reporter = await run_all(workspace)

    (result,) = reporter.results
    assert (result.case_id, result.outcome, result.message) == ("test_a.py", Outcome.SKIPPED, "not here")
    assert ended.verdict is Verdict.COMPLETED


async def test_cases_that_are_not_collected_are_reported_missing(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_a(): pass")
    spec = make_spec(workspace)

    async with opened(spec) as session:
        ended, reporter = await run_cases(session, spec, ["test_a.py::gone", "test_a.py::test_a"])
        only_missing, _ = await run_cases(session, spec, ["test_a.py::gone"], token=2)

    assert (ended.verdict, ended.missing) == (Verdict.FAILED, ("test_a.py::gone",))
    assert "test_a.py::gone" in ended.reason
    assert reporter.outcomes() == {"test_a": "passed"}
    assert only_missing.missing == ("test_a.py::gone",)


async def test_equal_ids_are_told_apart(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        conftest="def pytest_collection_modifyitems(items): items.append(items[0])",
        test_a="def test_a(): pass",
    )

    _, reporter = await run_all(workspace)

    assert reporter.outcomes() == {"test_a": "passed", "test_a #2": "passed"}


SLOW = "import time\ndef test_1(): print('begun', flush=True); time.sleep({})\ndef test_2(): pass"


async def test_cancelled_attempt_ends_at_once_and_the_next_gets_a_new_session(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a=SLOW.format(100))
    spec = make_spec(workspace, command=("-s",))

    async with opened(spec) as session:
        reporter = RecordingReporter()
        job = assignment(spec, ["test_a.py::test_1", "test_a.py::test_2"])
        future = session.submit(job, reporter)
        await reporter.until("begun")
        assert session.sample() is not None
        await session.stop(job.ref, reason="superseded", grace=GRACE, finish_running_case=False)
        _, again = await run_cases(session, spec, ["test_a.py::test_2"], token=2)
        await session.stop(job.ref, reason="again", grace=GRACE, finish_running_case=False)

    assert (future.result().verdict, future.result().reason) == (Verdict.CANCELLED, "superseded")
    assert reporter.results == []
    assert again.outcomes() == {"test_2": "passed"}


async def test_gently_cancelled_attempt_finishes_its_running_case(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a=SLOW.format(1) + "\ndef test_3(): pass")
    spec = make_spec(workspace, command=("-s",))

    async with opened(spec) as session:
        reporter, queued, other = RecordingReporter(), RecordingReporter(), RecordingReporter()
        job = assignment(spec, ["test_a.py::test_1", "test_a.py::test_2"])
        queued_job = assignment(spec, ["test_a.py::test_2"], token=2)
        future = session.submit(job, reporter)
        session.submit(queued_job, queued)
        last = session.submit(assignment(spec, ["test_a.py::test_3"], token=3), other)
        await reporter.until("begun")
        await session.stop(queued_job.ref, reason="no need", grace=GRACE, finish_running_case=False)
        await session.stop(job.ref, reason="drain", grace=GRACE, finish_running_case=True)
        session.flush()
        ended = await last

    assert (future.result().verdict, future.result().reason) == (Verdict.CANCELLED, "drain")
    assert reporter.outcomes() == {"test_1": "passed"}
    assert queued.results == []
    assert ended.verdict is Verdict.COMPLETED
    assert other.outcomes() == {"test_3": "passed"}


async def test_another_run_starts_from_pristine_files_in_a_new_process(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import os
            seen = []
            def test_a():
                assert not seen and not os.path.exists("left")
                seen.append(1); open("left", "w").close()
        """,
    )
    spec = make_spec(workspace)

    async with opened(spec) as session:
        first = RecordingReporter()
        future = session.submit(assignment(spec, ["test_a.py::test_a"], run_id="one"), first)
        _, second = await run_cases(session, spec, ["test_a.py::test_a"], run_id="two")
        await future

    assert first.outcomes() == second.outcomes() == {"test_a": "passed"}


async def test_case_that_runs_again_gets_a_new_instance(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            class TestA:
                def test_a(self):
                    assert not hasattr(self, "used")
                    self.used = True
        """,
    )
    spec = make_spec(workspace)

    async with opened(spec) as session:
        _, first = await run_cases(session, spec, ["test_a.py::TestA::test_a"])
        _, second = await run_cases(session, spec, ["test_a.py::TestA::test_a"], token=2, number=2)

    assert first.outcomes() == second.outcomes() == {"test_a": "passed"}


async def test_case_over_the_memory_limit_fails_as_out_of_memory(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="import time\ndef test_big(): x = bytearray(400 << 20); time.sleep(30)\ndef test_small(): pass",
    )

    ended, reporter = await run_all(workspace, limits=Resources(memory_bytes=200 << 20))

    assert reporter.outcomes() == {"test_big": "failed", "test_small": "passed"}
    assert reporter.named("test_big").message.startswith("out of memory: its processes used")
    assert ended.usage.peak_memory_bytes > 200 << 20


async def test_artifacts_are_stored_at_the_end(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_a(): open('report.txt', 'w').write('done')")
    spec = make_spec(workspace, artifacts=("*.txt", "../*"))

    async with opened(spec, blobs=tmp_path / "blobs") as session:
        ended, reporter = await run_cases(session, spec, ["test_a.py::test_a"])

    assert ended.verdict is Verdict.COMPLETED
    assert [artifact.path for artifact in reporter.stored] == ["report.txt"]
    assert (tmp_path / "blobs" / reporter.stored[0].digest).read_text() == "done"
    assert reporter.problems == ["../*: leaves the workspace"]


async def test_closed_session_cancels_what_it_had_and_what_comes(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a=SLOW.format(0.5))
    spec = make_spec(workspace, command=("-s",))
    reporter = RecordingReporter()

    async with opened(spec) as session:
        future = session.submit(assignment(spec, ["test_a.py::test_1", "test_a.py::test_2"]), reporter)
        await reporter.until("begun")
    late = session.submit(assignment(spec, ["test_a.py::test_2"], token=2), RecordingReporter())
    await session.stop(assignment(spec).ref, reason="", grace=GRACE, finish_running_case=True)

    assert future.result().verdict is Verdict.CANCELLED
    assert late.result().verdict is Verdict.CANCELLED


async def test_reporter_that_raises_does_not_leave_attempts_without_an_end(tmp_path: Path) -> None:
    class Broken(RecordingReporter):
        def result(self, result: Any) -> None:
            raise RuntimeError("spool is gone")

    workspace = suite(tmp_path / "w", test_a="def test_a(): pass")
    spec = make_spec(workspace)

    async with opened(spec) as session:
        future = session.submit(assignment(spec, ["test_a.py::test_a"]), Broken())
        session.flush()
        ended = await future
        _, after = await run_cases(session, spec, ["test_a.py::test_a"], token=2)

    assert ended.verdict is Verdict.ERRORED
    assert after.outcomes() == {"test_a": "passed"}


async def test_secrets_and_variables_reach_the_tests(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import os
            def test_a():
                assert os.environ["COLOUR"] == "blue"
                assert os.environ["FLEETEST_TASK"] == "unit"
                assert os.environ["TMPDIR"] != "/tmp"
                assert not any(name.startswith(("PYTEST_XDIST", "COVERAGE_")) for name in os.environ)
        """,
    )

    _, reporter = await run_all(workspace, env={"COLOUR": "blue"})

    assert reporter.outcomes() == {"test_a": "passed"}


async def test_cases_are_handed_back_while_another_runs(tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "begun"
    workspace = suite(
        tmp_path / "w",
        test_a=f"""
            import pathlib, time
            def test_1():
                pathlib.Path("{begun}").touch()
                while not pathlib.Path("{go}").exists(): time.sleep(0.01)
            def test_2(): pass
            def test_3(): pass
            def test_4(): pass
        """,
    )
    spec = make_spec(workspace)
    ids = [f"test_a.py::test_{number}" for number in range(1, 5)]

    async with opened(spec) as session:
        reporter = RecordingReporter()
        ended = session.submit(assignment(spec, ids, token=1), reporter)
        while not begun.exists():
            await asyncio.sleep(0.01)
        session.hand_back(assignment(spec, ids, token=1).ref, [ids[3], "test_a.py::stranger", ids[0], ids[2]])
        await reporter.until_handed_back()
        given_while_running = list(reporter.given)
        go.touch()
        session.flush()
        verdict = (await ended).verdict
        _, again = await run_cases(session, spec, ids[2:], token=2)

    assert given_while_running == [ids[3], ids[2]]
    assert reporter.outcomes() == {"test_1": "passed", "test_2": "passed"}
    assert verdict is Verdict.COMPLETED
    assert again.outcomes() == {"test_3": "passed", "test_4": "passed"}


async def test_an_attempt_that_is_handed_back_whole_takes_no_artifact_of_another(tmp_path: Path) -> None:
    """Nobody hears what it says after that: the file would be lost."""
    go, begun = tmp_path / "go", tmp_path / "begun"
    workspace = suite(
        tmp_path / "w",
        test_a=f"""
            import pathlib, time
            def test_1():
                pathlib.Path("left.txt").touch()
                pathlib.Path("{begun}").touch()
                while not pathlib.Path("{go}").exists(): time.sleep(0.01)
            def test_2(): pass
            def test_3(): pass
        """,
    )
    spec = make_spec(workspace, artifacts=("*.txt",))
    ids = [f"test_a.py::test_{number}" for number in range(1, 4)]

    async with opened(spec, blobs=tmp_path / "blobs") as session:
        owner, other = RecordingReporter(), RecordingReporter()
        first = session.submit(assignment(spec, ids[:2], token=1), owner)
        second = session.submit(assignment(spec, ids[2:], token=2), other)
        while not begun.exists():
            await asyncio.sleep(0.01)
        session.hand_back(assignment(spec, ids[2:], token=2).ref, ids[2:])
        await second
        go.touch()
        session.flush()
        await first

    assert other.stored == []
    assert [artifact.path for artifact in owner.stored] == ["left.txt"]


async def test_an_attempt_that_hands_back_what_is_left_of_it_ends(tmp_path: Path) -> None:
    """What was kept alive for the case that was handed back is torn down before whatever follows."""
    workspace = suite(
        tmp_path / "w",
        test_a="""
            import pytest
            @pytest.fixture(scope="module")
            def up():
                yield
                open("down", "w").close()
            def test_1(up): pass
            def test_2(up): pass
        """,
        test_b="""
            import os
            def test_3(): assert os.path.exists("down")
        """,
    )
    spec = make_spec(workspace)
    ids = ["test_a.py::test_1", "test_a.py::test_2", "test_b.py::test_3"]

    async with opened(spec) as session:
        reporter = RecordingReporter()
        ended = session.submit(assignment(spec, ids[:2], token=1), reporter)
        while not reporter.results:
            reporter.changed.clear()
            await reporter.changed.wait()
        session.hand_back(assignment(spec, ids[:2], token=1).ref, ids[:2])
        verdict = (await ended).verdict
        _, following = await run_cases(session, spec, ids[2:], token=2)

    assert reporter.given == [ids[1]]
    assert reporter.outcomes() == {"test_1": "passed"}
    assert verdict is Verdict.COMPLETED
    assert following.outcomes() == {"test_3": "passed"}


async def test_session_is_hungry_again_with_a_case_that_was_handed_back_and_came_again(tmp_path: Path) -> None:
    spec = make_spec(suite(tmp_path / "w", test_a="def test_1(): pass"))
    attempts = [assignment(spec, ["test_a.py::test_1"], token=token) for token in (1, 2)]

    async with opened(spec) as session:
        hungry = asyncio.Event()
        session.on_hungry(hungry.set)
        first = session.submit(attempts[0], RecordingReporter())
        await asyncio.wait_for(hungry.wait(), 60)
        session.hand_back(attempts[0].ref, ["test_a.py::test_1"])
        await first
        hungry.clear()
        reporter = RecordingReporter()
        second = session.submit(attempts[1], reporter)
        await asyncio.wait_for(hungry.wait(), 60)
        session.flush()
        await second

    assert reporter.outcomes() == {"test_1": "passed"}


async def test_cases_are_handed_back_before_the_session_has_collected(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_1(): pass\ndef test_2(): pass")
    spec = make_spec(workspace)
    ids = ["test_a.py::test_1", "test_a.py::test_2"]

    async with opened(spec) as session:
        reporter = RecordingReporter()
        ended = session.submit(assignment(spec, ids, token=1), reporter)
        session.hand_back(assignment(spec, ids, token=1).ref, ids[1:])
        session.flush()
        await ended

    assert reporter.given == ids[1:]
    assert reporter.outcomes() == {"test_1": "passed"}
