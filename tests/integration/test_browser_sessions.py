"""Resident sessions of pytest-playwright, with a real Chromium that the system has."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleetest.common.states import Verdict
from fleetest.common.suite import load_suite
from fleetest.worker.assignments import TaskSpec
from tests.support.pages import BROWSER_PYTHON, SHOP, serving
from tests.tools.local_worker import RecordingReporter, assignment, make_spec, opened, run_cases, suite

PIDS = """
    import pytest

    @pytest.fixture
    def pids(browser, record_property):
        session = browser.new_browser_cdp_session()
        processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
        session.detach()
        record_property("browser", next(p["id"] for p in processes if p["type"] == "browser"))
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("pages")
    (directory / "index.html").write_text(SHOP)
    with serving(directory) as address:
        yield address


@pytest.fixture(autouse=True)
def _needs_a_browser() -> None:
    missing = [str(BROWSER_PYTHON)] if not BROWSER_PYTHON.exists() else []
    missing += [] if shutil.which("chromium") else ["chromium"]
    if missing and os.environ.get("FLEETEST_TEST_ALL"):
        pytest.fail(f"no {missing}: run make test")
    if missing:
        pytest.skip(f"no {missing}: run tests/tools/make_venvs.sh and tests/tools/install_debian.sh")


def spec_of(workspace: Path, keys: str, **changes: Any) -> TaskSpec:
    """What a worker is told for a task of kind `playwright` with these keys."""
    text = f"version: 1\nname: shop\ntasks:\n  browser: {{type: playwright, {keys}}}\n"
    task = load_suite(text, source="fleetest.yaml").tasks[0]
    values = {"command": task.args, "artifacts": task.artifacts, "python": str(BROWSER_PYTHON)}
    return make_spec(workspace, **{**values, **changes})


async def test_browser_lives_from_shard_to_shard_and_what_cases_left_stays(shop: str, tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        conftest=PIDS,
        test_shop="""
            def test_one(page, pids):
                page.goto("/")
                assert page.title() == "Other"
            def test_two(page, pids):
                page.goto("/")
                assert "Pixel 7" in page.evaluate("navigator.userAgent")
            def test_three(page, pids):
                page.goto("/")
                assert page.get_by_text("Hello Emma").is_visible()
        """,
    )
    state = {"origins": [{"origin": shop, "localStorage": [{"name": "name", "value": "Emma"}]}]}
    (workspace / "state.json").write_text(json.dumps(state))
    keys = "base_url: '${env.SHOP_URL}', device: Pixel 7, storage_state: state.json, trace: off"
    spec = spec_of(workspace, keys, env={"SHOP_URL": shop})
    cases = [f"test_shop.py::test_{name}[chromium]" for name in ("one", "two", "three")]

    async with opened(spec, blobs=tmp_path / "blobs") as session:
        first, second = RecordingReporter(), RecordingReporter()
        futures = [session.submit(assignment(spec, cases[:1], token=1), first)]
        futures.append(session.submit(assignment(spec, cases[1:2], token=2), second))
        session.flush()  # fixtures are torn down when both are through
        for future in futures:
            assert (await future).verdict is Verdict.COMPLETED
        _, third = await run_cases(session, spec, cases[2:], token=3)

    results = [result for each in (first, second, third) for result in each.results]
    assert [result.outcome.value for result in results] == ["failed", "passed", "passed"], [r.details for r in results]
    browsers = [result.properties["browser"] for result in results]
    assert browsers[0] == browsers[1] != browsers[2]
    shot = "test-results/test-shop-py-test-one-chromium/test-failed-1.png"
    assert results[0].properties["playwright_screenshot"] == shot
    assert [artifact.path for artifact in first.stored] == [shot]
    assert {artifact.path for artifact in third.stored} <= {shot}  # the break has removed nothing, nor has it added


async def test_nothing_of_a_browser_is_left_when_its_session_is_killed(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        conftest=PIDS,
        test_stuck="""
            import time
            def test_stuck(page, pids):
                print("begun")
                time.sleep(600)
        """,
    )
    spec = spec_of(workspace, "args: -s")
    before = _browsers()

    async with opened(spec) as session:
        reporter = RecordingReporter()
        future = session.submit(assignment(spec, ["test_stuck.py::test_stuck[chromium]"]), reporter)
        session.flush()
        await reporter.until("begun")
        during = _browsers() - before
        ref = assignment(spec).ref
        await session.stop(ref, reason="enough", grace=timedelta(), finish_running_case=False)
        await future

    assert during
    assert not (_browsers() - before) & during


def _browsers() -> set[int]:
    """Processes of browsers and their drivers; zombies have no command line."""
    wanted = re.compile(r"chrom|playwright/driver")
    found = set()
    for process in psutil.process_iter():
        try:
            if wanted.search(" ".join(process.cmdline()[:2])):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


async def test_state_that_was_not_saved_is_told_before_any_case_runs(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_a(page): pass")

    async with opened(spec_of(workspace, "storage_state: state.json")) as session:
        ended, _ = await run_cases(session, spec_of(workspace, "storage_state: state.json"), ())

    assert ended.verdict is Verdict.FAILED
    assert "--storage-state state.json: No such file or directory" in ended.reason


async def test_where_pytest_playwright_is_not_installed_pytest_says_so(tmp_path: Path) -> None:
    workspace = suite(tmp_path / "w", test_a="def test_a(page): pass")
    spec = spec_of(workspace, "args: test_a.py", python="")

    async with opened(spec) as session:
        ended, _ = await run_cases(session, spec, ())

    assert ended.verdict is Verdict.FAILED
    assert 'Error importing plugin "playwright"' in ended.reason
    assert ended.reason.endswith("pip install pytest-playwright there")
