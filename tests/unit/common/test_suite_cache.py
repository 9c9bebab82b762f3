from __future__ import annotations

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite
from fleetest.common.tasks import CachePolicy, Task


def task_of(task: str, defaults: str = "{}") -> Task:
    text = f"version: 1\nname: x\ndefaults: {defaults}\ntasks:\n  unit: {task}\n"
    return load_suite(text, source="s").tasks[0]


@pytest.mark.parametrize(
    ("cache", "policy"),
    [
        ("true", CachePolicy()),
        ("{}", CachePolicy()),
        ("false", None),
        ("{sample: 0%}", CachePolicy(sample=0)),
        ("{sample: 12.5%, inputs: data/*}", CachePolicy(sample=0.125, inputs=("data/*",))),
        ("{inputs: [a, b/*.json]}", CachePolicy(inputs=("a", "b/*.json"))),
    ],
)
def test_cache_is_a_truth_value_or_says_how(cache: str, policy: CachePolicy | None) -> None:
    assert task_of(f"{{args: tests, cache: {cache}}}").cache == policy


def test_nothing_is_cached_unless_a_task_or_the_defaults_ask_for_it() -> None:
    assert task_of("{args: tests}").cache is None
    assert task_of("{args: tests}", "{cache: true}").cache == CachePolicy()
    assert task_of("{args: tests, cache: false}", "{cache: true}").cache is None
    assert task_of("{run: make}", "{cache: true}").cache is None


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("{args: t, cache: {sample: 5}}", "sample: '5' is not a share"),
        ("{args: t, cache: {sample: 101%}}", "sample: '101%' is not a share"),
        ("{args: t, cache: {input: x}}", "unknown key 'input'"),
        ("{args: t, cache: {inputs: /etc}}", "inputs: '/etc' leads out of the workspace"),
        ("{args: t, cache: yes}", "cache: must be a mapping, not text 'yes'"),
        ("{args: t, cache: }", "cache: must be true, false or a mapping, not nothing"),
        ("{run: make, cache: true}", "'cache' is not for a command task"),
        ("{args: t, cache: true, secrets: KEY}", "results that may depend on secrets are not cached"),
    ],
)
def test_wrong_cache_is_refused(task: str, message: str) -> None:
    with pytest.raises(SuiteInvalid) as refused:
        task_of(task)

    assert [problem.message for problem in refused.value.problems] == [message]


def test_task_with_secrets_may_opt_out_of_the_defaults() -> None:
    assert task_of("{args: t, cache: false, secrets: KEY}", "{cache: true}").cache is None
