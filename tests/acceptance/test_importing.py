"""Reports that were made elsewhere, from their files to a run that is listed, shown and reported as any other."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.acceptance.conftest import Cluster, write_files

BY_HAND = Path(__file__).parents[1] / "unit" / "common" / "made_by_hand"

JUNIT = """\
<testsuite name="S">
  <testcase classname="c" name="ok" time="0.5"/>
  <testcase classname="c" name="shaky"><flakyFailure message="too slow">at X</flakyFailure></testcase>
  <testcase classname="c" name="bad"><failure message="41 != 42">at Y</failure></testcase>
</testsuite>
"""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_files(
        tmp_path_factory.mktemp("reports"), {"a/junit.xml": JUNIT, "b/junit.xml": "<testsuites/>", "x": "no"}
    )
    (root / "k6.json").write_bytes((BY_HAND / "k6-summary-export.json").read_bytes())
    return root


def test_reports_become_a_run_that_is_shown_listed_and_reported(
    cluster: Cluster, reports: Path, tmp_path: Path
) -> None:
    out = tmp_path / "j.xml"

    done = cluster.fleetest(
        *("import", "a/junit.xml", "b/junit.xml", "k6.json", "--name", "nightly", "--label", "machine=1"),
        *("--project", "shop", "--junit", str(out), "--output", "json"),
        cwd=reports,
    )

    run = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert (run["state"], run["suite_name"], run["project"], run["labels"]) == (
        "failed",
        "nightly",
        "shop",
        {"machine": "1"},
    )
    assert {task["task_id"]: task["state"] for task in run["tasks"]} == {
        "a/junit.xml": "failed",
        "b/junit.xml": "passed",
        "k6.json": "failed",
    }
    assert (run["counts"]["passed"], run["counts"]["failed"], run["counts"]["flaky"]) == (5, 3, 1)
    shown = cluster.fleetest("show", run["run_id"])
    assert "c::bad" in shown.stdout
    assert "41 != 42" in shown.stdout
    assert run["run_id"][:8] in cluster.fleetest("ls", "--project", "shop").stdout
    assert cluster.fleetest("logs", run["run_id"], "k6.json").returncode == 0
    assert len(list(ET.parse(out).iter("testcase"))) == 8


def test_exit_codes_are_those_of_runs(cluster: Cluster, reports: Path) -> None:
    good = cluster.fleetest("import", "b/junit.xml", cwd=reports)
    unreadable = cluster.fleetest("import", "x", cwd=reports)
    absent = cluster.fleetest("import", "no.xml", cwd=reports)

    assert (good.returncode, unreadable.returncode, absent.returncode) == (0, 1, 2)
    assert "x:1: neither XML nor a JSON object" in unreadable.stderr
    assert "fleetest retry" not in unreadable.stderr


def test_the_same_key_finds_the_same_run(cluster: Cluster, reports: Path) -> None:
    first, second = (
        cluster.fleetest("import", "-d", "--idempotency-key", "once", "a/junit.xml", cwd=reports) for _ in range(2)
    )

    assert first.stdout == second.stdout
    assert "was imported before" in second.stderr
    assert cluster.fleetest("retry", first.stdout.strip(), cwd=reports).returncode == 2
