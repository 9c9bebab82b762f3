"""Names of environments: equal where nothing differs that matters, different where something does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fleetest.common.tasks import Network, Resources, Task, Timeouts
from fleetest.common.workspace import WorkspaceFile
from fleetest.master.runs.environment import SetupInputs, environment_key, requirements_of, setup_digest
from tests.tools.story import pytest_task, submitted

FILES = (
    WorkspaceFile(path="requirements.txt", digest="a" * 64, size_bytes=1),
    WorkspaceFile(path="src/pkg/setup.cfg", digest="b" * 64, size_bytes=1),
    WorkspaceFile(path="link", symlink_target="src"),
)
TASK = pytest_task(setup=("pip install -r requirements.txt",), env={"A": "1", "B": "2"})


def digest(task: Task, *files: WorkspaceFile) -> str:
    return setup_digest(task, SetupInputs(files or FILES))


def test_without_setup_there_is_no_digest() -> None:
    assert digest(pytest_task()) == ""


def test_the_setup_digest_depends_on_every_file_unless_some_are_named() -> None:
    changed = (replace(FILES[0], digest="c" * 64), *FILES[1:])
    named = replace(TASK, setup_inputs=("src/*.cfg",))

    assert digest(TASK) != digest(TASK, *changed)
    assert digest(named) == digest(named, *changed)
    assert digest(named) != digest(named, FILES[0], replace(FILES[1], digest="d" * 64))


def test_where_a_link_leads_makes_a_difference() -> None:
    assert digest(TASK) != digest(TASK, FILES[0], FILES[1], replace(FILES[2], symlink_target="elsewhere"))


@pytest.mark.parametrize(
    "change", [{"setup": ("make",)}, {"image": "python:3"}, {"python": "python3.12"}, {"env": {"A": "2"}}], ids=str
)
def test_what_decides_what_setup_makes_changes_its_digest(change: dict[str, object]) -> None:
    assert digest(replace(TASK, **change)) != digest(TASK)  # type: ignore[arg-type]  # forwarded as they are


def test_the_order_of_variables_makes_no_difference() -> None:
    assert digest(replace(TASK, env={"B": "2", "A": "1"})) == digest(TASK)


def key(task: Task, *, run_id: str = "r1", **settings: str) -> str:
    return environment_key(run_id, submitted(task, **settings), task)


@pytest.mark.parametrize(
    "change",
    [
        {"args": ("tests",)},
        {"env": {}},
        {"working_directory": "sub"},
        {"executor": "docker"},
        {"setup_digest": "x"},
    ],
    ids=str,
)
def test_what_a_session_depends_on_changes_its_key(change: dict[str, object]) -> None:
    assert key(replace(TASK, **change)) != key(TASK)  # type: ignore[arg-type]  # forwarded as they are


def test_limits_and_priority_make_no_difference() -> None:
    relaxed = replace(
        TASK, priority=99, retries=5, timeouts=Timeouts(total=timedelta(days=1)), resources=Resources(cpu_millis=1)
    )

    assert key(relaxed) == key(TASK)


@pytest.mark.parametrize(
    "change", [{"network": Network.NONE}, {"resources": Resources(memory_bytes=1)}, {"image": "python:4"}], ids=str
)
def test_what_a_container_has_for_its_whole_life_changes_its_key(change: dict[str, object]) -> None:
    contained = replace(TASK, image="python:3")

    assert key(replace(contained, **change)) != key(contained)  # type: ignore[arg-type]  # forwarded as they are


def test_another_workspace_is_another_environment() -> None:
    assert key(TASK, workspace_digest="x") != key(TASK)


def test_a_task_with_secrets_shares_with_no_other_run() -> None:
    secretive = replace(TASK, secrets=("TOKEN",))

    assert key(TASK, run_id="r1") == key(TASK, run_id="r2")
    assert key(secretive, run_id="r1") != key(secretive, run_id="r2")


@pytest.mark.parametrize(
    ("task", "requirements"),
    [
        (pytest_task(), {}),
        (pytest_task(image="python:3"), {"executor.docker": "true"}),
        (pytest_task(executor="docker"), {"executor.docker": "true"}),
        (pytest_task(executor="process", image="python:3"), {"executor.process": "true"}),
        (pytest_task(image="i", requirements={"gpu": "1"}), {"executor.docker": "true", "gpu": "1"}),
    ],
)
def test_an_executor_is_a_requirement(task: Task, requirements: dict[str, str]) -> None:
    assert requirements_of(task) == requirements
