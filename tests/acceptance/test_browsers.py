"""Browser tests on a cluster: a real Chromium against a page that is really served."""

from __future__ import annotations

import json
import os
import zipfile
from shutil import which

import pytest

from fleetest.common.states import TaskState
from tests.support.pages import BROWSER_PYTHON, SHOP, serving

SUITE = """
version: 1
name: shop
tasks:
  browser:
    type: playwright
    args: test_shop.py
    base_url: %s
    video: retain-on-failure
    python: %s
"""
TESTS = """
from playwright.sync_api import Page, expect

def test_title(page: Page):
    page.goto("/")
    expect(page).to_have_title("Shop")

def test_sold_out(page: Page):
    page.goto("/")
    page.get_by_role("button", name="Buy").click()
    assert page.get_by_text("Sold out").is_visible()

def test_heading(page: Page):
    page.goto("/")
    expect(page.get_by_role("heading")).to_have_text("Shop")
"""

LOGGED_IN = {
    "fleetest.yaml": """
        version: 1
        name: shop
        defaults: {base_url: %(url)s, python: %(python)s}
        tasks:
          login: {type: playwright, args: test_login.py, artifacts: [state.json]}
          browse:
            type: playwright
            args: test_greeting.py
            inputs: {login: state.json}
            storage_state: state.json
        """,
    "test_login.py": """
        def test_log_in(page):
            page.goto("/")
            page.evaluate("localStorage.name = 'Ann'")
            page.context.storage_state(path="state.json")
        """,
    "test_greeting.py": """
        from playwright.sync_api import expect

        def test_greeting(page):
            page.goto("/")
            expect(page.get_by_text("Hello Ann")).to_be_visible()
        """,
}


@pytest.fixture(autouse=True)
def _needs_a_browser():
    if not (BROWSER_PYTHON.exists() and which("chromium")):
        missing = "no Chromium, or no environment for it: tests/tools/install_debian.sh and tests/tools/make_venvs.sh"
        pytest.fail(missing) if os.environ.get("FLEETEST_TEST_ALL") else pytest.skip(missing)


def test_case_that_fails_in_a_browser_leaves_its_trace_screenshot_and_video(cluster, tmp_path):
    root, kept = tmp_path / "suite", tmp_path / "kept"
    root.mkdir()
    (root / "test_shop.py").write_text(TESTS)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/index.html").write_text(SHOP)
    with serving(tmp_path / "pages") as address:
        (root / "fleetest.yaml").write_text(SUITE % (address, BROWSER_PYTHON))

        done = cluster.fleetest("run", "--artifacts", str(kept), cwd=root)

    assert done.returncode == 1, done.stdout + done.stderr
    cases = {case["result"]["case_id"]: case["result"] for case in cluster.json("show", "--cases", "latest")["cases"]}
    assert {name.partition("::")[2]: result["outcome"] for name, result in cases.items()} == {
        "test_title[chromium]": "passed",
        "test_sold_out[chromium]": "failed",
        "test_heading[chromium]": "passed",
    }
    left = {path.name: path for path in kept.rglob("*") if path.is_file()}
    assert sorted(left) == ["test-failed-1.png", "trace.zip", "video.webm"]
    assert {path.parent for path in left.values()} == {
        kept / "browser/test-results/test-shop-py-test-sold-out-chromium"
    }
    listed = cluster.json("artifacts", "latest")
    assert {each["artifact"]["case_id"] for each in listed} == {"test_shop.py::test_sold_out[chromium]"}
    found = cases["test_shop.py::test_sold_out[chromium]"]["properties"]
    assert found["playwright_trace"] == str(left["trace.zip"].relative_to(kept / "browser"))
    assert left["test-failed-1.png"].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    video = left["video.webm"].read_bytes()
    assert video.startswith(b"\x1aE\xdf\xa3")  # EBML, of which WebM is one
    assert b"webm" in video[:64]
    with zipfile.ZipFile(left["trace.zip"]) as trace:
        actions = [json.loads(line) for line in trace.read("trace.trace").splitlines()]
        requests = [json.loads(line) for line in trace.read("trace.network").splitlines()]
    assert any(action.get("method") == "click" for action in actions)
    assert [request["snapshot"]["request"]["url"] for request in requests if "snapshot" in request][:1] == [
        address + "/"
    ]


def test_a_task_begins_logged_in_with_the_state_that_another_left(cluster, project, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/index.html").write_text(SHOP)
    with serving(tmp_path / "pages") as address:
        root = project(
            {**LOGGED_IN, "fleetest.yaml": LOGGED_IN["fleetest.yaml"] % {"url": address, "python": BROWSER_PYTHON}}
        )

        run = cluster.ended(cluster.submit(cwd=root))

    assert {task.task_id: (task.state, task.counts.passed) for task in run.tasks} == {
        "login": (TaskState.PASSED, 1),
        "browse": (TaskState.PASSED, 1),
    }
