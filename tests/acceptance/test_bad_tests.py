"""Tests that misbehave: each has a result that says what happened, and the others are none the worse."""

from __future__ import annotations

import psutil
import pytest

from fleetest.common.limits import MAX_OUTPUT_BYTES, MAX_RESULT_TEXT_BYTES
from fleetest.common.states import Outcome, RunState, TaskState
from tests.acceptance.conftest import write_files

SUITE = {
    "fleetest.yaml": """
        version: 1
        name: misbehaving
        defaults: {env: {PIDS: %s}}
        tasks:
          absent: {command: [no-such-program, --fast]}
          forks: {run: "sleep 600 & echo $! > $PIDS/forks"}
          kills-parent: {run: kill -9 $PPID}
          endless: {run: yes 0123456789, timeouts: {total: 2s}}
          no-xml: {run: "echo '<testsuite' > report.xml", reports: [report.xml]}
          no-report: {run: "true", reports: [report.xml]}
          binary: {run: "printf '\\\\000\\\\033[31m\\\\377'"}
          setup-fails: {run: "true", setup: echo no compiler here; exit 7}
          crash: {args: tests/test_crash.py, shards: 1}
          hang: {args: tests/test_hang.py, shards: 1, timeouts: {silence: 1s}}
          none: {args: tests/test_none.py}
          broken: {args: tests/test_broken.py}
        """,
    "tests/test_crash.py": """
        import os, signal, sys, time

        def test_before():
            pass

        def test_leaves():
            print("about to leave")
            os._exit(7)

        def test_segfault():
            os.kill(os.getpid(), signal.SIGSEGV)

        def test_kills_parent():
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)

        def test_forks_and_exits():
            if os.fork() == 0:
                sys.exit(3)
            os.wait()

        def test_writes_bytes():
            os.write(1, bytes(range(256)))
            print("\\x00\\x1b[31m\\udcff")
            assert False, "\\x00\\x1b[31m\\udcff"

        def test_writes_without_end():
            for _ in range(1000):
                print("0123456789" * 100)
            assert False

        def test_after():
            pass
        """,
    "tests/test_hang.py": """
        import time

        def sleep_for_ever():
            time.sleep(600)

        def test_hangs():
            sleep_for_ever()

        def test_after():
            pass
        """,
    "tests/test_none.py": "",
    "tests/test_broken.py": "import no_such_module",
}


@pytest.fixture(scope="module")
def pids(tmp_path_factory):
    """Where tasks write the ids of processes that they leave behind."""
    return tmp_path_factory.mktemp("pids")


@pytest.fixture(scope="module")
def run(shared_cluster, tmp_path_factory, pids):
    root = write_files(
        tmp_path_factory.mktemp("misbehaving"), {**SUITE, "fleetest.yaml": SUITE["fleetest.yaml"] % pids}
    )
    return shared_cluster.ended(shared_cluster.submit(cwd=root))


@pytest.fixture(scope="module")
def results(shared_cluster, run):
    return shared_cluster.results(run.run_id)


@pytest.fixture(scope="module")
def tasks(run):
    return {task.task_id: task for task in run.tasks}


def test_run_ends_as_failed(run):
    assert run.state is RunState.FAILED


def test_command_not_found_is_named(results):
    assert results["absent"].outcome is Outcome.FAILED
    assert results["absent"].message == "command not found: no-such-program"


def test_command_that_leaves_a_process_passes_and_the_process_is_ended(results, pids):
    assert results["forks"].outcome is Outcome.PASSED
    assert not psutil.pid_exists(int((pids / "forks").read_text()))


def test_command_that_kills_its_parent_fails_alone(results):
    assert results["kills-parent"].outcome is Outcome.FAILED
    assert results["kills-parent"].message == "the test's process was killed through its parent"


def test_output_without_end_is_bounded_and_said_to_be(shared_cluster, run, results, tasks):
    logs = shared_cluster.fleetest("logs", run.run_id, "endless")

    assert len(logs.stdout) == MAX_OUTPUT_BYTES
    assert "the rest of what endless#0 wrote was dropped" in logs.stderr
    assert tasks["endless"].state is TaskState.TIMED_OUT
    assert results["endless"].message == "its total limit of 0:00:02 has passed"
    assert len(results["endless"].details) <= MAX_RESULT_TEXT_BYTES


def test_report_that_is_no_xml_is_an_error_with_its_place(results):
    assert results["report.xml"].outcome is Outcome.ERROR
    assert results["report.xml"].message.startswith("report.xml:1: not XML")


def test_bytes_that_are_no_text_come_through(shared_cluster, run):
    with shared_cluster.client() as client:
        assert b"".join(chunk.content for chunk in client.logs(run.run_id, "binary")) == b"\0\x1b[31m\xff"


def test_failed_setup_shows_what_it_said(tasks):
    assert tasks["setup-fails"].state is TaskState.FAILED
    assert "exit code 7" in tasks["setup-fails"].reason
    assert "no compiler here" in tasks["setup-fails"].reason


def test_interpreter_that_exits_fails_the_case_that_ran(results):
    left = results["tests/test_crash.py::test_leaves"]

    assert left.outcome is Outcome.FAILED
    assert left.message == "the interpreter ended with exit code 7 in the middle"


def test_interpreter_that_crashes_names_the_signal(results):
    crashed = results["tests/test_crash.py::test_segfault"]

    assert crashed.outcome is Outcome.FAILED
    assert crashed.message == "the interpreter was ended by SIGSEGV (Segmentation fault)"
    assert "in test_segfault" in crashed.details


def test_case_that_kills_its_parent_fails_alone(results):
    killed = results["tests/test_crash.py::test_kills_parent"]

    assert killed.outcome is Outcome.FAILED
    assert killed.message == "the test's process was killed through its parent"


@pytest.mark.parametrize("name", ["test_before", "test_forks_and_exits", "test_after"])
def test_crashes_beside_it_do_not_harm_a_case(results, name):
    assert results[f"tests/test_crash.py::{name}"].outcome is Outcome.PASSED


def test_unprintable_output_does_not_hide_the_failure(results):
    wrote = results["tests/test_crash.py::test_writes_bytes"]

    assert wrote.outcome is Outcome.FAILED
    assert "AssertionError" in wrote.message
    assert "\x1b[31m" in wrote.stdout


def test_captured_output_without_end_is_bounded_and_said_to_be(results):
    wrote = results["tests/test_crash.py::test_writes_without_end"]

    assert wrote.truncated
    assert len(wrote.stdout.encode()) <= MAX_RESULT_TEXT_BYTES


def test_hanging_case_times_out_with_its_stacks(results):
    hung = results["tests/test_hang.py::test_hangs"]

    assert hung.outcome is Outcome.TIMED_OUT
    assert hung.message == "no word for 0:00:01"
    assert "in sleep_for_ever" in hung.details
    assert "in test_hangs" in hung.details
    assert results["tests/test_hang.py::test_after"].outcome is Outcome.PASSED


def test_file_without_tests_fails_and_says_so(tasks):
    assert tasks["none"].state is TaskState.FAILED
    assert "no tests ran: pytest collected nothing" in tasks["none"].reason


def test_file_that_cannot_be_collected_is_an_error_with_the_cause(results, tasks):
    assert tasks["broken"].state is TaskState.FAILED
    assert results["tests/test_broken.py"].outcome is Outcome.ERROR
    assert "no_such_module" in results["tests/test_broken.py"].details
