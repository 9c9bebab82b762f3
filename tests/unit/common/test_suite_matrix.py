from __future__ import annotations

import pytest

from fleetest.common.suite import SuiteInvalid, load_suite, matrix
from fleetest.common.tasks import Need, Task

HEAD = "version: 1\nname: x\n"


def tasks_of(task: str, rest: str = "") -> tuple[Task, ...]:
    return load_suite(f"{HEAD}tasks:\n  a: {task}\n{rest}", source="x").tasks


def check(task: str, message: str, hint: str = "") -> None:
    before, _, after = f"{HEAD}tasks:\n  a: {task}\n".partition("«")
    with pytest.raises(SuiteInvalid) as caught:
        load_suite(before + after, source="x")
    (problem,) = caught.value.problems
    assert (problem.line, problem.column) == (4, len(before) - before.rfind("\n"))
    assert problem.message == message
    assert hint in problem.hint


def test_a_matrix_makes_a_task_of_every_combination_in_order():
    tasks = tasks_of("{run: 'x ${matrix.python}-${matrix.os}', matrix: {python: [3.9, 3.10], os: [linux, mac]}}")

    assert [(task.name, task.shell) for task in tasks] == [
        ("a[python=3.9,os=linux]", "x 3.9-linux"),
        ("a[python=3.9,os=mac]", "x 3.9-mac"),
        ("a[python=3.10,os=linux]", "x 3.10-linux"),
        ("a[python=3.10,os=mac]", "x 3.10-mac"),
    ]


def test_exclude_leaves_combinations_out_and_include_adds_some():
    tasks = tasks_of(
        "{run: x, matrix: {n: [1, 2], m: [1, 2], exclude: [{n: 2}, {n: 1, m: 2}], include: [{m: 7, n: 8}]}}"
    )

    assert [task.name for task in tasks] == ["a[n=1,m=1]", "a[n=8,m=7]"]


def test_a_matrix_may_have_included_combinations_only():
    assert [task.name for task in tasks_of("{run: x, matrix: {include: [{n: 1}, {n: 2}]}}")] == ["a[n=1]", "a[n=2]"]


def test_values_reach_every_text_and_a_text_that_is_only_a_placeholder_becomes_the_value():
    (task,) = tasks_of(
        "{args: 't -k ${matrix.k}', shards: '${matrix.n}', requires: {memory: '${matrix.mem}', cpu: '${matrix.n}'},"
        " env: {'V_${matrix.n}': '${matrix.k}!', N: '${matrix.n}'}, matrix: {n: [2], mem: [1GiB], k: [fast]}}"
    )

    assert (task.args, task.shards) == (("t", "-k", "fast"), 2)
    assert (task.resources.memory_bytes, task.resources.cpu_millis) == (1 << 30, 2000)
    assert task.env == {"V_2": "fast!", "N": "2"}


def test_defaults_may_hold_a_matrix_and_use_its_values():
    suite = load_suite(
        f"{HEAD}defaults: {{matrix: {{py: [3, 4]}}, python: 'py${{matrix.py}}', priority: '${{matrix.py}}'}}\n"
        "tasks: {a: {run: x}, b: {run: x, matrix: {py: [5]}}}",
        source="x",
    )

    assert [(task.name, task.python, task.priority) for task in suite.tasks] == [
        ("a[py=3]", "py3", 3),
        ("a[py=4]", "py4", 4),
        ("b[py=5]", "py5", 5),
    ]


def test_an_empty_matrix_is_none():
    assert [task.name for task in tasks_of("{run: x, matrix: {}}")] == ["a"]


def test_needing_a_task_with_a_matrix_means_all_its_combinations_or_one_by_its_name():
    *_, one, all_of_them = tasks_of(
        "{run: x, matrix: {n: [1, 2]}}",
        "  b: {run: x, matrix: {n: [2]}, needs: {'a[n=${matrix.n}]': always}}\n  c: {run: x, needs: a}\n",
    )

    assert [need.task for need in one.needs] == ["a[n=2]"]
    assert all_of_them.needs == (Need(task="a[n=1]"), Need(task="a[n=2]"))


@pytest.mark.parametrize(
    ("task", "message", "hint"),
    [
        ("{run: x, matrix: «[1]}", "matrix: must be a mapping, not a list", ""),
        ("{run: x, matrix: {n: «1}}", "n: must be a list, not 1", ""),
        ("{run: x, matrix: {n: «[]}}", "n: must not be empty", ""),
        ("{run: x, matrix: {n: [«{}]}}", "n: must be a text, not a mapping", ""),
        ("{run: x, matrix: {n: [1, «'1']}}", "value '1' is twice on axis 'n'", ""),
        ("{run: x, matrix: {n: [«'a,b']}}", "n: 'a,b' is not a value of a matrix", "name"),
        ("{run: x, matrix: {m: [1], n: [«'${matrix.m}']}}", "n: '${matrix.m}' is not a value of a matrix", ""),
        ("{run: x, matrix: {n: «'${matrix.m}'}}", "n: must be a list, not text '${matrix.m}'", ""),
        ("{run: x, shards: «'${matrix.m}', matrix: {n: [1]}}", "no matrix axis 'm' here", ""),
        ("{run: x, matrix: {«n m: [1]}}", "'n m' is not a name of a matrix axis", ""),
        ("{run: x, matrix: «{include: [{n m: 1}]}}", "'n m' is not a name of a matrix axis", ""),
        ("{run: x, matrix: {n: [1], exclude: [{«m: 1}]}}", "no matrix axis 'm' here", "Known here: n"),
        ("{run: x, matrix: {n: [1, 2], exclude: [«{n: 3}]}}", "this entry excludes nothing", ""),
        ("{run: x, matrix: «{n: [1], exclude: [{n: 1}]}}", "this matrix leaves no combination", ""),
        ("{run: x, matrix: {n: [1], m: [1], include: [«{n: 2}]}}", "this entry has no value for axis 'm'", ""),
        ("{run: x, matrix: {n: [1], include: [«{n: 1}]}}", "this combination is in the matrix already", ""),
        ("{run: x, matrix: {n: [1], include: «3}}", "include: must be a list, not 3", ""),
        ("{run: «'${matrix.pyton}', matrix: {python: [3]}}", "no matrix axis 'pyton' here", "Did you mean 'python'?"),
        ("{run: «'x ${matrix.a}'}", "no matrix axis 'a' here", "key `matrix`"),
        ("{run: x, priority: «'${matrix.n}', matrix: {n: [900]}}", "priority: must be at most 100, not 900", ""),
    ],
)
def test_a_wrong_matrix_is_refused_with_its_place(task, message, hint):
    check(task, message, hint)


def test_values_of_a_wrong_matrix_are_not_held_against_the_task():
    check(
        "{run: x, shards: '${matrix.n}', needs: 'a[${matrix.n}]', matrix: «[n]}",
        "matrix: must be a mapping, not a list",
    )


def test_a_matrix_of_too_many_tasks_is_refused_before_it_is_expanded(monkeypatch):
    axes = ", ".join(f"a{number}: [1, 2]" for number in range(2000))

    check(f"{{run: x, matrix: «{{{axes}}}}}", "this matrix makes more than 10000 tasks")
    monkeypatch.setattr(matrix, "MAX_TASKS", 100)
    assert len(tasks_of(f"{{run: x, matrix: {{a: {list(range(10))}, b: {list(range(10))}}}}}")) == 100


def test_a_matrix_has_at_most_256_exclusions():
    entries = ", ".join(f"{{n: {number}}}" for number in range(257))

    check(f"{{run: x, matrix: {{n: [1], exclude: «[{entries}]}}}}", "exclude: has more than 256 entries")
