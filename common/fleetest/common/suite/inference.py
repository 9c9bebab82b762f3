"""The suite of a command line: what `fleetest run -- pytest tests` means without a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

__all__ = ["infer_suite"]

_PYTEST: Final = re.compile(r"pytest|py\.test")
_PYTHON: Final = re.compile(r"python(3(\.\d+)?)?")
_PLAIN: Final = re.compile(r"(--?)?[A-Za-z_/][\w./=-]*", re.ASCII)
_MEANING_SOMETHING_ELSE: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""To YAML 1.1."""

_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_.-]+")


def infer_suite(argv: Sequence[str], *, project: str, python: str) -> str:
    """
    The text of a suite with one task that runs `argv`: a pytest task for `pytest …` and `python -m pytest …`, and for
    nothing at all; else a command task, named after its program.

    What the arguments mean, and whether they make sense, is for `load_suite` to say.

    Args:
        project: the name of the suite.
        python: path of the interpreter whose environment the task uses, unless `argv` begins with the path of one.
    """
    pytest_args = _pytest_args(argv)
    if argv and PurePath(argv[0]).is_absolute() and _PYTHON.fullmatch(PurePath(argv[0]).name):
        python = argv[0]
    if pytest_args is None:
        name, what = _task_name(argv[0]), f"command: {_yaml(list(argv))}"
    else:
        name, what = "pytest", f"args: {_yaml(pytest_args)}" if pytest_args else "type: pytest"
    lines = (
        "version: 1",
        f"name: {_yaml(project)}",
        "tasks:",
        f"  {_yaml(name)}:",
        f"    {what}",
        f"    python: {_yaml(python)}",
    )
    return "\n".join(lines) + "\n"


def _pytest_args(argv: Sequence[str]) -> list[str] | None:
    """Pytest's arguments; `None` when the program is another one."""
    if not argv:
        return []
    program = PurePath(argv[0]).name
    if _PYTEST.fullmatch(program):
        return list(argv[1:])
    if _PYTHON.fullmatch(program) and list(argv[1:3]) == ["-m", "pytest"]:
        return list(argv[3:])
    return None


def _task_name(program: str) -> str:
    name = _NOT_IN_A_NAME.sub("-", PurePath(program).name).strip("-.")
    return name[:100] or "command"


def _is_plain(word: str) -> bool:
    return _PLAIN.fullmatch(word) is not None and word.lower() not in _MEANING_SOMETHING_ELSE


def _yaml(value: str | list[str]) -> str:
    """As one line of YAML, quoted only where it must be."""
    if all(map(_is_plain, [value] if isinstance(value, str) else value)):
        return value if isinstance(value, str) else f"[{', '.join(value)}]"
    import yaml  # most commands need no quotes, and to load it takes a twentieth of the time until a run is handed in

    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("...\n").strip()
