"""What a task takes of another's artifacts: how it is written, and what is wrong about it."""

from __future__ import annotations

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite
from fleetest.common.tasks import Input, Need, When

LOGIN = "login: {run: x, artifacts: [state.json, out]}"


def tasks_of(tasks: str):
    return load_suite(f"version: 1\nname: x\ntasks: {tasks}\n", source="x").tasks


def browse(inputs: str, *, needs: str = ""):
    return tasks_of(f"{{{LOGIN}, browse: {{run: x, inputs: {inputs}{needs}}}}}")[1]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("login", Input(task="login")),
        ("[login]", Input(task="login")),
        ("{login: {}}", Input(task="login")),
        ("{login: state.json}", Input(task="login", files=("state.json",))),
        ("{login: [state.json, out/**]}", Input(task="login", files=("state.json", "out/**"))),
        (
            "{login: {files: out, into: ./from/login, optional: true}}",
            Input(task="login", files=("out",), into="from/login", optional=True),
        ),
    ],
)
def test_every_way_to_write_an_input(written, meant):
    assert browse(written).inputs == (meant,)


def test_who_leaves_an_input_is_needed_as_needs_says_or_else_passed():
    assert browse("login").needs == (Need(task="login"),)
    assert browse("login", needs=", needs: {login: always}").needs == (Need(task="login", when=When.ALWAYS),)


def test_the_name_of_a_task_with_a_matrix_means_all_that_it_became():
    [_, _, report] = tasks_of(
        "{unit: {run: x, artifacts: out, matrix: {n: [1, 2]}}, report: {run: x, inputs: {unit: out}}}"
    )

    assert [each.task for each in report.inputs] == ["unit[n=1]", "unit[n=2]"]
    assert [need.task for need in report.needs] == ["unit[n=1]", "unit[n=2]"]


@pytest.mark.parametrize(
    ("tasks", "message", "hint"),
    [
        (f"{{{LOGIN}, b: {{run: x, inputs: [logn]}}}}", "no task is called 'logn'", "Did you mean 'login'?"),
        ("{a: {run: x}, b: {run: x, inputs: {a: s.json}}}", "'a' keeps no artifacts", "`artifacts: [s.json]`"),
        ("{a: {run: x, artifacts: o, inputs: a}}", "task needs itself: a → a", ""),
        ("{a: {run: x, artifacts: o, inputs: b}, b: {run: x, artifacts: o, needs: a}}", "in a circle: a → b → a", ""),
        (f"{{{LOGIN}, b: {{run: x, inputs: {{login: {{into: ../up}}}}}}}}", "'../up' leads out of the workspace", ""),
        (f"{{{LOGIN}, b: {{run: x, inputs: {{login: {{file: a}}}}}}}}", "unknown key 'file'", "Did you mean 'files'?"),
        (
            "{s: {type: service, run: x}, b: {run: x, inputs: s, needs: {s: ready}}}",
            "'s' is a service, which runs as long as it is needed",
            "a task that ends",
        ),
        (
            "{a: {run: x, artifacts: o, matrix: {n: [1]}}, b: {run: x, inputs: {a: o, 'a[n=1]': o}}}",
            "what is taken of 'a[n=1]' is said twice",
            "",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_once(tasks, message, hint):
    with pytest.raises(SuiteInvalid) as refusal:
        tasks_of(tasks)

    [problem] = refusal.value.problems
    assert message in problem.message
    assert hint in problem.hint
    assert problem.line
