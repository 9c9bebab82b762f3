"""Robot Framework, k6 and ZAP as kinds of tests: what their tasks start, and how what they leave is read."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite
from fleetest.common.tasks import ReportOptions, RunnerType, Task

DOCS = Path(__file__).parents[3] / "docs" / "kinds"


def task(text: str) -> Task:
    (found,) = load_suite(f"version: 1\nname: s\ntasks: {{t: {text}}}", source="fleetest.yaml").tasks
    return found


def test_robot_gets_tags_variables_and_suites() -> None:
    robot = task(
        "{type: robot, suites: tests, include: smoke, exclude: [slow, wip], variables: {URL: 'http://x'}, args: --dryrun}"
    )

    assert (robot.type, robot.runner) == ("robot", RunnerType.COMMAND)
    assert shlex.join(robot.command) == (
        "robot --outputdir robot-results --output output.xml --consolecolors off --include smoke "
        "--exclude slow --exclude wip --variable URL:http://x --dryrun tests"
    )
    assert robot.reports == ("**/robot-results/output.xml",)
    assert robot.report_options == {"**/robot-results/output.xml": ReportOptions(form="robot")}
    assert robot.artifacts == ("**/robot-results",)


def test_k6_gets_its_script_and_thresholds(tmp_path: Path) -> None:
    k6 = task(
        "{type: k6, script: it's.js, vus: 5, duration: 1m30s, samples: true, args: '--tag a=b', "
        "thresholds: {http_req_duration: [p(95)<500, avg<200], checks: rate>0.9}, image: i}"
    )

    assert k6.shell.endswith(
        "exec k6 run --summary-export k6-summary.json --config k6-config.json --vus 5 --duration 1m30s "
        "--out json=k6-samples.json --tag a=b 'it'\"'\"'s.js'"
    )
    ran = subprocess.run(
        ["/bin/sh", "-c", f"k6() {{ :; }}\n{k6.shell.replace('exec ', '')}"], cwd=tmp_path, check=False
    )
    config = json.loads((tmp_path / "k6-config.json").read_text())
    assert ran.returncode == 0
    assert config == {"thresholds": {"http_req_duration": ["p(95)<500", "avg<200"], "checks": ["rate>0.9"]}}
    assert k6.artifacts == ("**/k6-summary.json", "**/k6-samples.json")


def planned(text: str, tmp_path: Path, **environment: str) -> dict[str, Any]:
    """The plan that a task makes for ZAP, by running its shell lines with a `zap.sh` that does nothing."""
    program = tmp_path / "zap.sh"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >arguments\nexit 2\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **environment}
    subprocess.run(["/bin/sh", "-c", task(text).shell], cwd=tmp_path, env=environment, check=True)
    found: dict[str, Any] = json.loads((tmp_path / "zap-plan.yaml").read_text())
    return found


def test_zap_gets_a_plan_that_reports_where_the_task_runs(tmp_path: Path) -> None:
    plan = planned("{type: zap, target: 'https://shop.test/a?b=1', minutes: 3, image: i}", tmp_path)

    assert plan["env"]["contexts"] == [{"name": "target", "urls": ["https://shop.test/a?b=1"]}]
    assert [job["type"] for job in plan["jobs"]] == ["spider", "passiveScan-wait", "report", "report"]
    assert plan["jobs"][0]["parameters"] == {"maxDuration": 3}
    assert plan["jobs"][2]["parameters"] == {
        "template": "traditional-json",
        "reportDir": str(tmp_path),
        "reportFile": "zap-report.json",
    }
    assert (tmp_path / "arguments").read_text().splitlines()[-2:] == ["-autorun", f"{tmp_path}/zap-plan.yaml"]


def test_a_full_scan_attacks_and_variables_name_the_target(tmp_path: Path) -> None:
    plan = planned(
        "{type: zap, target: '${SHOP_URL}/$x', scan: full, openapi: api.yaml, fail_level: high, image: i}",
        tmp_path,
        SHOP_URL="http://127.0.0.1:8080",
    )

    assert plan["env"]["contexts"][0]["urls"] == ["http://127.0.0.1:8080/$x"]
    assert [job["type"] for job in plan["jobs"]][:4] == ["openapi", "spider", "passiveScan-wait", "activeScan"]
    assert plan["jobs"][0]["parameters"] == {"apiFile": f"{tmp_path}/api.yaml", "targetUrl": "http://127.0.0.1:8080/$x"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{type: robot}", "suites"),
        ("{type: robot, suites: ../x}", "leads out of the workspace"),
        ("{type: k6, script: a.js, thresholds: {m: p95<5}}", "'p95<5' is not a threshold of k6"),
        ("{type: k6, script: a.js, duration: long}", "duration"),
        ("{type: zap}", "target"),
        ("{type: zap, target: shop.test}", "'shop.test' is not a URL of HTTP"),
        ("{type: zap, target: 'http://x', plan: a.yaml}", "plan"),
        ("{type: zap, target: 'http://x', fail_level: fatal}", "fail_level"),
        ("{run: make, reports: [{files: a.xml, format: nunit}]}", "format"),
        ("{run: make, reports: [{format: junit}]}", "files"),
    ],
)
def test_keys_that_make_no_sense_are_refused(text: str, message: str) -> None:
    with pytest.raises(SuiteInvalid) as caught:
        task(text)

    assert message in str(caught.value)


def test_reports_of_a_command_may_say_their_format() -> None:
    command = task("{run: make, reports: [a.xml, {files: '*.json', format: zap, fail_level: high}]}")

    assert command.reports == ("a.xml", "*.json")
    assert command.report_options == {"*.json": ReportOptions(form="zap", fail_level="high")}


@pytest.mark.parametrize("page", ["robot", "k6", "zap"])
def test_the_suite_of_each_page_can_be_pasted(page: str) -> None:
    text = (DOCS / f"{page}.md").read_text().partition("```yaml\n")[2].partition("```")[0]

    (documented,) = load_suite(text, source="fleetest.yaml").tasks

    assert documented.type == page
