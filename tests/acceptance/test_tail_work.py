"""What a busy worker has not started goes to one that is idle."""

from __future__ import annotations

from textwrap import dedent

from fleetest.client.events import CasesHandedBack

CASES = 8


def test_cases_behind_a_slow_one_run_elsewhere_and_each_runs_once(cluster, tmp_path):
    """Its history says that all are quick, so they are one shard; the first one ends only when others ran the rest."""
    tally, workspace = tmp_path / "tally", tmp_path / "suite"
    workspace.mkdir()
    (workspace / "test_a.py").write_text(
        dedent(f"""
            import os, pathlib, time
            import pytest

            TALLY = pathlib.Path({str(tally)!r})

            @pytest.mark.parametrize("number", range({CASES}))
            def test_it(number):
                limit = time.monotonic() + 60
                while os.environ["SLOW"] == "yes" and number == 0 and len(TALLY.read_text().split()) < {CASES - 1}:
                    assert time.monotonic() < limit, "nobody ran the others"
                    time.sleep(0.02)
                with TALLY.open("a") as tally:
                    tally.write(f"{{number}}\\n")
        """)
    )

    def run(slow):
        tally.write_text("")
        (workspace / "fleetest.yaml").write_text(
            f"version: 1\nname: tail\ntasks: {{unit: {{args: test_a.py, env: {{SLOW: '{slow}'}}}}}}"
        )
        return cluster.submit(cwd=workspace)

    assert cluster.ended(run("no")).state == "passed"
    run_id = run("yes")
    run = cluster.ended(run_id)
    with cluster.client() as client:
        events = [event for commit in client.watch(run_id) for event in commit.events]

    assert run.state == "passed"
    assert sorted(tally.read_text().split()) == sorted(map(str, range(CASES)))
    given = [case_id for event in events if isinstance(event, CasesHandedBack) for case_id in event.case_ids]
    assert len(given) == CASES - 1
