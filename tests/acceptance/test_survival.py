"""`kill -9` in the middle of a run: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import pytest

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
