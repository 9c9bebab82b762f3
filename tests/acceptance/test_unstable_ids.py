"""Cases whose ids differ from one collection to the next: reported, never dropped."""

from __future__ import annotations

from fleetest.common.states import Outcome, RunState

SUITE = """
    version: 1
    name: unstable
    tasks:
      unstable: {args: test_unstable.py, shards: 2, env: {SESSIONS: %s}}
    """

FILE = """
    import os, pathlib, pytest, time, uuid

    SESSIONS = pathlib.Path(os.environ["SESSIONS"])
    SESSIONS.joinpath(f"{os.getpid()}.session").touch()

    @pytest.fixture(autouse=True)
    def both_sessions():
        limit = time.monotonic() + 30
        while len(list(SESSIONS.glob("*.session"))) < 2 and time.monotonic() < limit:
            time.sleep(0.02)

    @pytest.mark.parametrize("value", [uuid.uuid4().hex for _ in range(4)])
    def test_value(value):
        pass

    def test_stable():
        pass
    """


def test_ids_that_differ_between_collections_are_reported(cluster, project, tmp_path):
    root = project({"test_unstable.py": FILE, "fleetest.yaml": SUITE % tmp_path})

    run = cluster.ended(cluster.submit(cwd=root))

    results = cluster.results(run.run_id)
    lost = [result for result in results.values() if result.outcome is Outcome.ERROR]
    assert run.state is RunState.FAILED
    assert len(results) == run.counts.planned == 5
    assert lost
    assert {result.message.rpartition("-")[0] for result in lost} == {
        "was planned, but not collected by the session on local"
    }
    assert results["test_unstable.py::test_stable"].outcome is Outcome.PASSED
