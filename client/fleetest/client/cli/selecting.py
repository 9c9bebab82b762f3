"""A part of a suite: the chosen tasks and all that they need, every line where it was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import yaml

from fleetest.common.errors import InvalidRequest
from fleetest.common.suite import Suite

__all__ = ["select_tasks"]


def select_tasks(text: str, suite: Suite, names: Sequence[str]) -> str:
    """
    The suite's text with the lines of all other tasks left blank, so that messages name the right line.

    Args:
        suite: what the text says.
        names: of tasks, without matrix values.

    Raises:
        InvalidRequest: there is no such task, or the tasks are written as a flow mapping (`{...}`).
    """
    wanted = _with_needs(suite, names)
    lines = text.splitlines(keepends=True)
    tasks = _tasks_node(text)
    if tasks.flow_style:
        raise InvalidRequest(
            "--task needs each task of the suite on lines of its own", hint="Write `tasks:` without braces."
        )
    starts = [key.start_mark.line for key, _ in tasks.value] + [tasks.end_mark.line]
    for (key, _), start, end in zip(tasks.value, starts, starts[1:], strict=False):
        if key.value not in wanted:
            lines[start:end] = ["\n"] * (end - start)
    return "".join(lines)


def _with_needs(suite: Suite, names: Iterable[str]) -> set[str]:
    needs: dict[str, set[str]] = {}
    for task in suite.tasks:
        needs.setdefault(_base(task.name), set()).update(_base(need.task) for need in task.needs)
    open_names, wanted = list(names), set[str]()
    while open_names:
        name = open_names.pop()
        if name not in needs:
            whole = _base(name) in needs
            hint = f"Name the whole of it: --task {_base(name)}" if whole else f"Its tasks are {', '.join(needs)}."
            raise InvalidRequest(f"the suite has no task {name!r}", hint=hint)
        if name not in wanted:
            wanted.add(name)
            open_names += needs[name]
    return wanted


def _base(name: str) -> str:
    return name.partition("[")[0]


def _tasks_node(text: str) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), "load_suite has read it"
    tasks = next(value for key, value in root.value if key.value == "tasks")
    assert isinstance(tasks, yaml.MappingNode), "load_suite has read it"
    return tasks
