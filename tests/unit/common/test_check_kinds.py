from __future__ import annotations

import pytest

from fleetest.common.suite import load_suite
from fleetest.common.suite.problems import SuiteInvalid
from fleetest.common.tasks import RunnerType, Split


def tasks_of(tasks):
    return load_suite(f"version: 1\nname: shop\ntasks:\n  {tasks}\n", source="fleetest.yaml").tasks


def test_checks_are_pytest_sessions_with_a_plugin_of_ours():
    (task,) = tasks_of(
        "api: {type: rest, files: api/*.yaml, base_url: 'http://shop', variables: {n: 3, t: a b, u: '${env.U}'}, maxfail: 2}"
    )

    assert (task.type, task.runner, task.split, task.maxfail) == ("rest", RunnerType.PYTEST, Split.FILE, 2)
    assert task.args == (
        "-p",
        "fleetest.worker.checks.plugin",
        "--checks-files=api/*.yaml",
        "--checks-variable=n=3",
        '--checks-variable=t="a b"',
        '--checks-variable=u="${env.U}"',
        "--checks-base-url=http://shop",
    )


def test_kinds_of_checks_have_files_of_their_own_name():
    rest, graphql = tasks_of("a: {type: rest}\n  b: {type: graphql, split: case}")

    assert [task.args[2] for task in (rest, graphql)] == [
        "--checks-files=**/*.rest.yaml",
        "--checks-files=**/*.graphql.yaml",
    ]
    assert graphql.split is Split.CASE


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("base_url: shop", "base_url: 'shop' is not an address"),
        ("files: []", "files: must not be empty"),
        ("files: ../a.yaml", "leads out of the workspace"),
        ("args: x", "'args' is not for a rest task"),
        ("variables: {'1': x}", "'1' cannot name a variable"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(SuiteInvalid, match=message):
        tasks_of(f"api: {{type: rest, {keys}}}")
