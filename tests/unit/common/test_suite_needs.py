from __future__ import annotations

import pytest

from fleetest.common.suite import Problem, SuiteInvalid, graph, load_suite
from fleetest.common.tasks import Need, When


def needs_of(tasks: str) -> dict[str, tuple[Need, ...]]:
    suite = load_suite(f"version: 1\nname: x\ntasks: {tasks}\n", source="x")
    return {task.name: task.needs for task in suite.tasks}


def problems_of(tasks: str) -> list[Problem]:
    with pytest.raises(SuiteInvalid) as caught:
        needs_of(tasks)
    return list(caught.value.problems)


def places_of(marked: str) -> list[tuple[int, int]]:
    lines = f"version: 1\nname: x\ntasks: {marked}\n".split("\n")
    return [
        (number, position + 1)
        for number, line in enumerate(lines, start=1)
        for position in (index - line[:index].count("«") for index, sign in enumerate(line) if sign == "«")
    ]


@pytest.mark.parametrize(
    "needs", ["b", "[b]", "[b, b]", "{b: passed}", "{b: {when: passed}}", "{b: {}}"]
)  # fmt: skip
def test_every_way_to_write_a_need_means_the_same(needs):
    assert needs_of(f"{{a: {{run: x, needs: {needs}}}, b: {{run: x}}}}")["a"] == (Need(task="b"),)


def test_a_need_may_wait_for_any_end_or_for_a_failure():
    needs = needs_of("{a: {run: x, needs: {c: always, b: {when: failed}}}, b: {run: x}, c: {run: x}}")

    assert needs["a"] == (Need(task="c", when=When.ALWAYS), Need(task="b", when=When.FAILED))


@pytest.mark.parametrize(
    ("marked", "message", "hint"),
    [
        ("{unit: {run: x}, b: {run: x, needs: [«unti]}}", "no task is called 'unti'", "Did you mean 'unit'?"),
        ("{unit: {run: x}, b: {run: x, needs: {«zzz: always}}}", "no task is called 'zzz'", "Known here: unit, b."),
        ("{unit: {run: x}, b: {run: x, needs: «uni}}", "no task is called 'uni'", "Did you mean 'unit'?"),
        ("{a: {run: x}, b: {run: x, needs: {a: «alwys}}}", "when: text 'alwys' is not one of passed, always, failed, ready", "Did you mean 'always'?"),
        ("{a: {run: x}, b: {run: x, needs: {a: «~}}}", "when: nothing is not one of passed, always, failed, ready", ""),
        ("{a: {run: x}, b: {run: x, needs: {a: {«wen: always}}}}", "unknown key 'wen'", "Did you mean 'when'?"),
        ("{a: {run: x}, b: {run: x, needs: [a, «[b]]}}", "needs: must be a task's name, not a list", ""),
        ("{a: {run: x}, b: {run: x, needs: «~}}", "needs: must be names of tasks, not nothing", ""),
        ("{a: {run: x, needs: «a}}", "task needs itself: a → a", ""),
        ("{a: {run: x, matrix: {n: [1, 2]}, needs: «a}}", "task needs itself: a[n=1] → a[n=1]", ""),
        ("{a: {run: x, matrix: {n: [1, 2]}}, b: {run: x, needs: {a: passed, «'a[n=1]': always}}}", "'a[n=1]' is needed twice, and not in the same way", ""),
    ],
)  # fmt: skip
def test_a_wrong_need_is_refused_with_its_place(marked, message, hint):
    (problem,) = problems_of(marked.replace("«", ""))

    assert [(problem.line, problem.column)] == places_of(marked)
    assert problem.message == message
    assert hint in problem.hint


def test_each_cycle_is_named_whole_once_and_at_its_first_need():
    marked = (
        "\n  d: {run: x, needs: a}"
        "\n  a: {run: x, needs: [e, «b]}"
        "\n  b: {run: x, needs: c}"
        "\n  c: {run: x, needs: [e, a]}"
        "\n  e: {run: x}"
        "\n  f: {run: x, needs: [e, «g]}"
        "\n  g: {run: x, needs: f}"
    )

    problems = problems_of(marked.replace("«", ""))

    assert [problem.message for problem in problems] == [
        "tasks need one another in a circle: a → b → c → a",
        "tasks need one another in a circle: f → g → f",
    ]
    assert [(problem.line, problem.column) for problem in problems] == places_of(marked)


def test_a_diamond_is_no_cycle():
    needs = needs_of("{a: {run: x}, b: {run: x, needs: a}, c: {run: x, needs: a}, d: {run: x, needs: [b, c, a]}}")

    assert [need.task for need in needs["d"]] == ["b", "c", "a"]


def test_a_cycle_of_very_many_tasks_is_shortened_and_found_without_recursion():
    tasks = "".join(f"\n  t{number}: {{run: x, needs: t{(number + 1) % 1500}}}" for number in range(1500))

    (problem,) = problems_of(tasks)

    assert problem.message.startswith("tasks need one another in a circle: t0 → t1 → ")
    assert problem.message.endswith("t48 → … (1451 more) → t0")


def test_of_very_many_cycles_the_first_are_named():
    tasks = "".join(f"\n  t{number}: {{run: x, needs: t{number}}}" for number in range(50))

    assert len(problems_of(tasks)) == 20


def test_a_broken_task_can_be_needed_without_a_second_problem():
    (problem,) = problems_of("{a: , b: {run: x, needs: a}}")

    assert problem.message == "a: must be a mapping, not nothing"


def test_needs_between_two_large_matrices_are_refused(monkeypatch):
    monkeypatch.setattr(graph, "MAX_NEEDS", 1000)
    numbers = list(range(40))

    (problem,) = problems_of(
        f"{{a: {{run: x, matrix: {{n: {numbers}}}}}, b: {{run: x, needs: a, matrix: {{n: {numbers}}}}}}}"
    )

    assert problem.message == "with these, the suite has more than 1000 needs"
