from __future__ import annotations

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite
from fleetest.common.tasks import RunnerType, Task


def task_of(keys: str) -> Task:
    text = f"version: 1\nname: shop\ntasks:\n  browser: {{type: playwright, {keys}}}\n"
    return load_suite(text, source="fleetest.yaml").tasks[0]


def test_browser_tests_are_pytest_sessions_that_keep_what_failed():
    task = task_of("args: tests -k buy")

    assert (task.type, task.runner) == ("playwright", RunnerType.PYTEST)
    assert task.args == (
        *("-p", "playwright", "--browser=chromium", "--output=test-results", "--tracing=retain-on-failure"),
        *("--screenshot=only-on-failure", "--video=off", "tests", "-k", "buy"),
    )
    assert task.requirements == {"browser": "chromium"}
    assert task.artifacts == ("test-results",)


def test_every_key_becomes_an_option():
    task = task_of(
        "browser: webkit, device: iPhone 15, base_url: 'http://shop', trace: off, screenshot: on, full_page: true, "
        "video: retain-on-failure, storage_state: state.json, working_directory: web, artifacts: [log.txt], maxfail: 2"
    )

    assert task.args[2:] == (
        *("--browser=webkit", "--output=test-results", "--tracing=off", "--screenshot=on"),
        *("--video=retain-on-failure", "--full-page-screenshot", "--device=iPhone 15", "--base-url=http://shop"),
        "--storage-state=state.json",
    )
    assert task.requirements == {"browser.webkit": "true"}
    assert (task.artifacts, task.maxfail) == (("log.txt", "web/test-results"), 2)


def test_workers_with_another_name_for_their_browser_can_be_asked_for():
    assert task_of("requires: {capabilities: {browser: chrome-beta}}").requirements == {"browser": "chrome-beta"}


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("browser: opera", "browser: text 'opera' is not one of chromium, firefox, webkit"),
        ("trace: true", "trace: .* is not one of off, on, retain-on-failure"),
        ("args: --browser firefox", "args: --browser has a key of its own"),
        ("args: [--tracing=on]", r"(?s)args.*: --tracing has a key of its own.*`trace`"),
        ("args: --output out", "args: --output is always test-results"),
        ("args: --pdb", "args: .*--pdb"),
        ("storage_state: /tmp/state.json", "storage_state: .* leads out of the workspace"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys: str, problem: str):
    with pytest.raises(SuiteInvalid, match=problem):
        task_of(keys)
