"""A suite that cannot be: every problem at once, with its place and what to do, and nothing is submitted."""

from __future__ import annotations

import pytest

BAD = {
    "no YAML": (
        """
        version: 1
        name: broken
        tasks:
          unit: {args: tests
          lint: [
        """,
        ["fleetest.yaml:5:7: not valid YAML", "begins in line 4"],
    ),
    "unknown keys": (
        """
        version: 1
        name: misspelt
        tasks:
          unit:
            args: tests
            retrys: 2
            timeouts: {totl: 5m}
        """,
        [
            "fleetest.yaml:6:5: unknown key 'retrys'\n    Did you mean 'retries'?",
            "fleetest.yaml:7:16: unknown key 'totl'\n    Did you mean 'total'?",
            "2 problems in the suite; nothing was submitted",
        ],
    ),
    "cycle": (
        """
        version: 1
        name: circle
        tasks:
          unit: {args: tests, needs: [deploy]}
          build: {run: make, needs: [unit]}
          deploy: {run: make deploy, needs: [build]}
        """,
        ["fleetest.yaml:4:31: tasks need one another in a circle: unit → deploy → build → unit"],
    ),
    "missing task": (
        """
        version: 1
        name: missing
        tasks:
          unit: {args: tests}
          report: {run: make report, needs: [unitt]}
        """,
        ["fleetest.yaml:5:38: no task is called 'unitt'\n    Did you mean 'unit'?"],
    ),
    "values": (
        """
        version: 1
        name: values
        tasks:
          unit:
            args: [tests, --pdb]
            priority: 101
            timeouts: {total: 5}
            requires: {memory: 5G}
        """,
        [
            "fleetest.yaml:5:19: args: pytest's --pdb makes no sense on a cluster",
            "fleetest.yaml:6:15: priority: must be at most 100, not 101",
            "fleetest.yaml:7:23: total: '5' is not a duration\n    Write the unit: 5s or 5m.",
            "fleetest.yaml:8:24: memory: '5G' is not a size",
            "4 problems in the suite; nothing was submitted",
        ],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_suite_is_refused_with_every_place(cluster, project, name):
    text, said = BAD[name]
    root = project({"fleetest.yaml": text})
    with cluster.client() as client:
        before = [run.run_id for run in client.list_runs()]

        done = cluster.fleetest("run", cwd=root)

        assert done.returncode == 2
        assert [line for line in said if line not in done.stderr] == [], done.stderr
        assert "Traceback" not in done.stderr
        assert [run.run_id for run in client.list_runs()] == before


def test_refusal_needs_no_cluster(cluster, project, tmp_path):
    root = project({"fleetest.yaml": BAD["cycle"][0]})

    done = cluster.fleetest("run", cwd=root, FLEETEST_DATA_DIR=str(tmp_path / "none"))

    assert done.returncode == 2
    assert not (tmp_path / "none").exists()


def test_file_that_is_not_there_is_named(cluster, tmp_path):
    done = cluster.fleetest("run", "absent.yaml", cwd=tmp_path)

    assert done.returncode == 2
    assert "'absent.yaml' cannot be read" in done.stderr
    assert "fleetest run -- pytest" in done.stderr
