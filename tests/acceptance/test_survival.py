"""`kill -9` in the middle of a run: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import subprocess

import pytest

from fleetest.common.states import RunState
from tests.acceptance.conftest import FLEETEST, clean_environment
from tests.support.masters import Masters

CASES = 40

SLOW_SUITE = {
    "test_slow.py": f"""
        import os, time
        import pytest

        @pytest.mark.parametrize("number", range({CASES}))
        def test_number(number):
            with open(os.environ["TALLY"], "a") as tally:
                tally.write(f"{{number}}\\n")
            time.sleep(0.15)
        """
}


@pytest.fixture
def started(own_cluster, project, tmp_path, until):
    """A run of forty slow cases of which some have finished."""
    tally = tmp_path / "tally"
    root = project({**SLOW_SUITE, "fleetest.yaml": _suite(tally)})
    submitted = own_cluster.fleetest("run", "--detach", cwd=root)
    assert submitted.returncode == 0, submitted.stderr
    until(lambda: tally.exists() and len(tally.read_text().split()) >= 8, what="some cases have run")
    return tally


def _suite(tally):
    return f"""
        version: 1
        name: slow
        tasks:
          slow:
            args: test_slow.py
            env: {{TALLY: {tally}}}
        """


def _check(own_cluster, tally, *, most_repeated):
    watched = own_cluster.fleetest("watch", "latest", timeout=120)
    assert watched.returncode == 0, watched.stdout + watched.stderr
    run = own_cluster.json("show", "latest")
    assert run["state"] == "passed"
    assert run["counts"]["passed"] == run["counts"]["planned"] == CASES
    executed = tally.read_text().split()
    assert set(executed) == {str(number) for number in range(CASES)}
    assert len(executed) <= CASES + most_repeated


def test_killed_worker_loses_only_what_it_was_running(own_cluster, started):
    own_cluster.children("fleetest.worker")[0].kill()

    _check(own_cluster, started, most_repeated=8)


def test_killed_master_goes_on_when_it_is_back(own_cluster, started):
    own_cluster.children("fleetest.master")[0].kill()

    _check(own_cluster, started, most_repeated=0)


def test_killed_redis_is_filled_again_from_the_log(own_cluster, started):
    own_cluster.children("redis-server")[0].kill()

    _check(own_cluster, started, most_repeated=8)


# -- several masters


@pytest.fixture
def shared_run(own_masters, project, tmp_path, until):
    """As `started`, on two masters and two workers, followed by a client that knows both masters."""
    tally = tmp_path / "tally"
    root = project({**SLOW_SUITE, "fleetest.yaml": _suite(tally)})
    own_masters.start_worker("one", ["a", "b"])
    own_masters.start_worker("two", ["b", "a"])
    environment = own_masters.client_environment("a", "b")
    follower = subprocess.Popen(
        [FLEETEST, "run"], cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    until(lambda: tally.exists() and len(tally.read_text().split()) >= 4, what="some cases have run")
    yield tally, follower
    follower.kill()
    follower.communicate()


def _check_shared(own_masters, tally, follower, *, at, most_repeated):
    said, _ = follower.communicate(timeout=150)
    assert follower.returncode == 0, said
    with own_masters.client(at) as client:
        [listed] = client.list_runs()
        run = client.get_run(listed.run_id)  # the list may be behind the end that the follower heard of
        cases = [case.result.case_id for case in client.cases(run.run_id)]
    assert (run.state, run.counts.passed, run.counts.planned) == (RunState.PASSED, CASES, CASES)
    assert len(cases) == len(set(cases)) == CASES
    executed = tally.read_text().split()
    assert set(executed) == {str(number) for number in range(CASES)}
    assert len(executed) <= CASES + most_repeated


def test_masters_killed_in_turn_lose_nothing(own_masters, shared_run, until):
    tally, follower = shared_run
    for name, finished in (("a", 10), ("b", 20)):
        own_masters.kill(name)
        until(lambda finished=finished: len(tally.read_text().split()) >= finished, what="the run goes on")
        own_masters.start(name)
        own_masters.until_serving(name)

    _check_shared(own_masters, tally, follower, at="b", most_repeated=0)


def test_one_master_goes_on_without_the_other(own_masters, shared_run):
    tally, follower = shared_run

    own_masters.kill("a")

    _check_shared(own_masters, tally, follower, at="b", most_repeated=0)


@pytest.mark.parametrize("own_masters", ["mongodb"], indirect=True)  # to be left takes a minute, on any store
def test_frozen_master_is_left_by_its_worker_and_its_client(own_masters, shared_run):
    tally, follower = shared_run

    own_masters.process("a").suspend()

    _check_shared(own_masters, tally, follower, at="b", most_repeated=8)


def test_masters_started_before_redis_serve_when_it_answers(tmp_path):
    with Masters(tmp_path / "masters", clean_environment()) as masters:
        masters.start("a")
        masters.start("b")
        masters.start_worker("w", ["b"])
        masters.until_serving("a", "b")
        masters.redis.start()
        with masters.client("a") as client:
            run_id = client.submit("version: 1\nname: s\ntasks: {t: {run: 'true'}}").run_id
            assert [*client.watch(run_id)]
            assert client.get_run(run_id).state is RunState.PASSED
