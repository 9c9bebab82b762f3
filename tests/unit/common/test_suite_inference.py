from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.suite import SuiteInvalid, infer_suite, load_suite
from fleetest.common.tasks import RunnerType, Task

PYTHON = "/home/me/shop/.venv/bin/python"


def inferred(*argv: str) -> Task:
    (task,) = load_suite(infer_suite(argv, project="shop", python=PYTHON), source="x").tasks
    return task


def test_the_text_is_what_one_would_write():
    assert infer_suite(["pytest", "tests", "-k", "not slow"], project="shop", python=PYTHON) == (
        "version: 1\n"
        "name: shop\n"
        "tasks:\n"
        "  pytest:\n"
        "    args: [tests, -k, not slow]\n"
        "    python: /home/me/shop/.venv/bin/python\n"
    )


def test_nothing_at_all_is_pytest():
    assert infer_suite([], project="shop", python=PYTHON) == (
        "version: 1\nname: shop\ntasks:\n  pytest:\n    type: pytest\n    python: /home/me/shop/.venv/bin/python\n"
    )


@given(st.lists(st.text("aeInoOyYsN-=./_1~:", max_size=5), min_size=1))
def test_arguments_are_quoted_only_where_yaml_must(arguments):
    text = infer_suite(["pytest", *arguments], project="shop", python=PYTHON)

    line = yaml.safe_dump(arguments, default_flow_style=True, width=float("inf")).strip()
    assert f"    args: {line}\n" in text


@pytest.mark.parametrize("program", [["pytest"], ["py.test"], ["/usr/bin/pytest"], ["python", "-m", "pytest"], ["python3.12", "-m", "pytest"]])  # fmt: skip
def test_every_way_to_start_pytest_is_a_pytest_task(program):
    assert inferred(*program, "tests", "-x") == Task(
        name="pytest", type="pytest", args=("tests",), maxfail=1, python=PYTHON
    )


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["make", "test"], "make"),
        (["./scripts/check it.sh"], "check-it.sh"),
        (["python", "-m", "unittest"], "python"),
        (["python", "run.py"], "python"),
        (["…"], "command"),
        ([""], "command"),
        (["123", "yes", "null", "3.10", "a: b", "#", ""], "123"),
    ],
)
def test_anything_else_is_a_command_named_after_its_program(argv, name):
    assert inferred(*argv) == Task(
        name=name, type="command", runner=RunnerType.COMMAND, command=tuple(argv), python=PYTHON
    )


def test_the_path_of_an_interpreter_is_the_interpreter():
    assert inferred("/opt/py/bin/python3", "-m", "pytest").python == "/opt/py/bin/python3"


def test_arguments_without_a_meaning_are_refused_when_the_suite_is_loaded():
    with pytest.raises(SuiteInvalid, match="pytest's --pdb makes no sense on a cluster"):
        inferred("pytest", "--pdb")


PRINTABLE = st.text(st.characters(blacklist_categories=["Cs", "Cc"]))


@given(st.lists(PRINTABLE | st.sampled_from(["\n", "a\tb", " x ", "'", '"', "- a", "~", "!x", "%"]), min_size=1))
def test_every_command_survives_as_it_is(arguments):
    assert inferred("env", *arguments).command == ("env", *arguments)
