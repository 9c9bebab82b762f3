"""Puts into words how a pytest process ended."""

from __future__ import annotations

import re
import signal
from typing import Final

from fleetest.worker.runners.pytest_channel import DESCRIPTOR_LOST

__all__ = ["ending_of", "signal_name"]

_TELLING: Final = re.compile(
    r"^(ERROR: (?!usage:)|pytest: error:|.*: error: |E {2,}|ImportError while loading|Exit: |INTERNALERROR> \w*Error|"
    r"!+ .*(Exit|Interrupted|stopping|KeyboardInterrupt).* !+$|.*No module named pytest)"
)
_MOST_LINES: Final = 3
_HINTS: Final = {
    'importing plugin "fleetest.worker.checks.': (
        "checks run in the environment of their task: pip install 'fleetest[checks]' there"
    ),
    'importing plugin "playwright"': (
        "browser tests run in the environment of their task: pip install pytest-playwright there"
    ),
}
"""What to do, by what pytest says when it lacks a plugin that a kind of test needs."""


def signal_name(number: int) -> str:
    """`SIGSEGV (Segmentation fault)`."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    description = signal.strsignal(number)
    return f"{name} ({description})" if description else name


def ending_of(exit_code: int, output: str, *, collected: bool) -> str:
    """
    One line for people.

    Args:
        exit_code: minus the signal's number when a signal ended it.
        output: the end of what pytest wrote; its own message is taken from there.
        collected: whether it had come to run cases. pytest's message tells about what came before.
    """
    if exit_code == DESCRIPTOR_LOST:
        return "a test closed the descriptor over which its session reports"
    if exit_code == -signal.SIGKILL.value:
        return "the interpreter was ended by SIGKILL: by the test itself, or the machine was out of memory"
    if exit_code < 0:
        return f"the interpreter was ended by {signal_name(-exit_code)}"
    if collected:
        return f"the interpreter ended with exit code {exit_code} in the middle"
    said = "; ".join([*_telling_lines(output), *(hint for lack, hint in _HINTS.items() if lack in output)])
    return said or f"pytest ended with exit code {exit_code} before it had collected its cases"


def _telling_lines(output: str) -> list[str]:
    found = [line.rstrip() for line in output.splitlines() if _TELLING.match(line)]
    return [re.sub(r"^(E +|INTERNALERROR> )|^!+ | !+$", "", line) for line in found[:_MOST_LINES]]
