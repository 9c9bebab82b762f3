"""What becomes of tasks and runs: dependencies, retries, limits, stops, and the exit code that says so."""

from __future__ import annotations

import pytest

from fleetest.common.states import RunState, TaskState
from tests.acceptance.conftest import write_files

SUITE = """
    version: 1
    name: verdicts
    defaults: {env: {MARKS: %s}}
    tasks:
      good: {run: "true"}
      bad: {run: "false"}
      after-good: {run: "true", needs: [good]}
      after-bad: {run: "true", needs: [bad]}
      after-skipped: {run: "true", needs: [after-bad]}
      always: {run: "true", needs: {bad: always}}
      on-failure: {run: "true", needs: {bad: failed}}
      on-failure-of-good: {run: "true", needs: {good: failed}}
      flaky: {run: 'test -e $MARKS/tried || { touch $MARKS/tried; exit 1; }', retries: 2}
      hopeless: {run: 'echo tried >> $MARKS/hopeless; exit 1', retries: 2}
      queues: {run: "true", timeouts: {queue: 500ms}, requires: {capabilities: {colour: blue}}}
      starts: {run: "true", setup: sleep 60, timeouts: {start: 500ms}}
      silent: {run: sleep 60, timeouts: {silence: 500ms}}
      lasts: {run: 'while true; do echo word; sleep 0.1; done', timeouts: {total: 500ms, silence: 10s}}
      matrix: {run: 'test "$LETTER$NUMBER" != b2', matrix: {letter: [a, b], number: [1, 2]},
               env: {LETTER: "${matrix.letter}", NUMBER: "${matrix.number}"}}
    """


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    return tmp_path_factory.mktemp("marks")


@pytest.fixture(scope="module")
def ran(shared_cluster, tmp_path_factory, marks):
    root = write_files(tmp_path_factory.mktemp("verdicts"), {"fleetest.yaml": SUITE % marks})
    return shared_cluster.ended(shared_cluster.submit(cwd=root))


@pytest.fixture(scope="module")
def tasks(ran):
    return {task.task_id: task for task in ran.tasks}


@pytest.mark.parametrize(
    ("name", "state"),
    {
        "after-good": TaskState.PASSED,
        "after-bad": TaskState.SKIPPED,
        "after-skipped": TaskState.SKIPPED,
        "always": TaskState.PASSED,
        "on-failure": TaskState.PASSED,
        "on-failure-of-good": TaskState.SKIPPED,
    }.items(),
)
def test_needs_decide_whether_a_task_runs(tasks, name, state):
    assert tasks[name].state is state


def test_skipped_task_says_which_need_was_not_met(tasks):
    assert "bad" in tasks["after-bad"].reason
    assert "after-bad" in tasks["after-skipped"].reason
    assert "good" in tasks["on-failure-of-good"].reason


def test_retry_heals_a_flaky_case_and_says_so(tasks):
    assert tasks["flaky"].state is TaskState.PASSED
    assert (tasks["flaky"].counts.passed, tasks["flaky"].counts.flaky) == (1, 1)


def test_case_that_stays_bad_is_tried_as_often_as_asked(tasks, marks):
    assert tasks["hopeless"].state is TaskState.FAILED
    assert (marks / "hopeless").read_text().split() == ["tried"] * 3


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "queues": "no worker",
        "starts": "did not start within 0:00:00.500000",
        "silent": "timed out",
        "lasts": "total limit of 0:00:00.500000",
    }.items(),
)
def test_each_time_limit_ends_its_task_and_is_named(tasks, name, said):
    assert tasks[name].state is TaskState.TIMED_OUT
    assert said in tasks[name].reason


def test_matrix_makes_a_task_of_each_combination(tasks):
    states = {name: task.state.value for name, task in tasks.items() if name.startswith("matrix")}

    assert sorted(states.values()) == ["failed", "passed", "passed", "passed"]
    assert states["matrix[letter=b,number=2]"] == "failed"


def test_run_with_failures_fails(ran):
    assert ran.state is RunState.FAILED


@pytest.mark.parametrize(("arguments", "code"), [(["true"], 0), (["false"], 1)])
def test_exit_code_is_the_verdict(cluster, tmp_path, arguments, code):
    assert cluster.fleetest("run", "--", *arguments, cwd=tmp_path).returncode == code


def test_exit_code_tells_usage_from_infrastructure(cluster, tmp_path):
    assert cluster.fleetest("run", "--no-such-option", cwd=tmp_path).returncode == 2
    assert cluster.fleetest("show", "00000000", cwd=tmp_path).returncode == 2
    assert cluster.fleetest("ls", FLEETEST_DATA_DIR=str(tmp_path / "none")).returncode == 3


def test_fail_fast_cancels_what_has_not_begun(cluster, project):
    root = project(
        {
            "fleetest.yaml": """
            version: 1
            name: fast
            tasks:
              bad: {run: "false"}
              waits: {run: "true", requires: {capabilities: {colour: blue}}}
              later: {run: "true", needs: {waits: always}}
            """
        }
    )

    done = cluster.fleetest("run", "--fail-fast", cwd=root)

    states = {task["task_id"]: task["state"] for task in cluster.json("show", "latest")["tasks"]}
    assert done.returncode == 1
    assert states == {"bad": "failed", "waits": "cancelled", "later": "cancelled"}


def test_fail_fast_stops_what_other_tasks_run(cluster, project, tmp_path):
    started = tmp_path / "started"
    root = project(
        {
            "fleetest.yaml": f"""
            version: 1
            name: fast
            tasks:
              sleeps: {{run: "touch {started}; sleep 600"}}
              bad: {{run: "until test -e {started}; do sleep 0.05; done; exit 1"}}
            """
        }
    )

    done = cluster.fleetest("run", "--fail-fast", cwd=root)

    tasks = {task["task_id"]: (task["state"], task["reason"]) for task in cluster.json("show", "latest")["tasks"]}
    assert done.returncode == 1
    assert tasks == {
        "sleeps": ("cancelled", "stopped at the first failure, in bad"),
        "bad": ("failed", "1 of 1 case failed"),
    }


@pytest.mark.parametrize(("option", "failures"), [("-x", 1), ("--maxfail=2", 2)])
def test_run_stops_after_so_many_failures_wherever_they_happen(cluster, project, option, failures):
    content = """
        import pytest, time

        @pytest.mark.parametrize("number", range(300))
        def test_number(number):
            time.sleep(0.05)
            assert number % 50
        """

    done = cluster.fleetest("run", "--", "pytest", option, cwd=project({"test_many.py": content}))

    counts = cluster.json("show", "latest")["counts"]
    assert done.returncode == 1
    assert failures <= counts["failed"] <= failures + 2
    assert counts["failed"] + counts["passed"] < 300


COUNTING = """
    import os, pathlib, pytest

    HERE = pathlib.Path(os.environ["MARKS"])

    @pytest.mark.parametrize("number", range(4))
    def test_number(number):
        with open(HERE / "tally", "a") as tally:
            tally.write(f"{number}\\n")
        assert number != 2 or (HERE / "mended").exists()
    """


@pytest.fixture
def mended(cluster, project, tmp_path):
    """A run of which one of four cases failed, and would not again. Answers the project and the tally of cases."""
    suite = f"""
        version: 1
        name: mended
        project: {tmp_path.name}
        tasks:
          pytest: {{args: test_counting.py, env: {{MARKS: {tmp_path}}}}}
        """
    root = project({"test_counting.py": COUNTING, "fleetest.yaml": suite})
    assert cluster.fleetest("run", cwd=root).returncode == 1
    (tmp_path / "mended").touch()
    (tmp_path / "tally").unlink()
    return root, tmp_path / "tally"


def test_retry_runs_what_failed(cluster, mended):
    done = cluster.fleetest("retry")

    assert done.returncode == 0, done.stderr
    assert mended[1].read_text().split() == ["2"]


def test_retry_all_runs_everything(cluster, mended):
    done = cluster.fleetest("retry", "--all")

    assert done.returncode == 0, done.stderr
    assert sorted(mended[1].read_text().split()) == ["0", "1", "2", "3"]


def test_last_failed_runs_what_failed_in_the_run_before(cluster, mended):
    root, tally = mended
    suite = root / "fleetest.yaml"
    suite.write_text(suite.read_text().replace("args: test_counting.py", "args: test_counting.py --lf"))

    done = cluster.fleetest("run", cwd=root)

    assert done.returncode == 0, done.stderr
    assert tally.read_text().split() == ["2"]


def test_retry_of_a_run_that_passed_says_there_is_nothing_to_do(cluster, tmp_path):
    cluster.fleetest("run", "--", "true", cwd=tmp_path)

    done = cluster.fleetest("retry")

    assert done.returncode == 2
    assert "nothing to repeat" in done.stderr
    assert "fleetest retry --all" in done.stderr
