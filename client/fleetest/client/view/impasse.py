"""Why nothing of a run runs, told once per reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fleetest.client.values import Reason, ReasonKind, TaskExplanation
from fleetest.client.view.harmless import one_line

__all__ = ["impasse_lines"]

_REASONS_SHOWN: Final = 5
_TASKS_SHOWN: Final = 3

# Nothing keeps these tasks, or another task does, which has its own reasons.
_NO_OBSTACLES: Final = frozenset({ReasonKind.WAITS_FOR_TASK, ReasonKind.RUNS, ReasonKind.ENDED})


def impasse_lines(explanations: Sequence[TaskExplanation]) -> tuple[str, ...]:
    """
    `waiting: 2 of 2 workers lack browser=chromium (ui)`: a line for each distinct reason, with the tasks that it keeps.

    A place in a queue is told only of tasks that nothing else keeps.
    """
    kept: dict[str, list[str]] = {}
    everybodys = set()
    for explanation in explanations:
        for reason in _obstacles(explanation.reasons):
            sentence = one_line(reason.message or reason.kind.value.replace("_", " "))
            kept.setdefault(sentence, []).append(one_line(explanation.task_id))
            if reason.kind is ReasonKind.NO_WORKERS:
                everybodys.add(sentence)
    lines = [
        f"waiting: {sentence}{'' if sentence in everybodys else _named(tasks)}" for sentence, tasks in kept.items()
    ]
    if len(lines) > _REASONS_SHOWN:
        return (*lines[: _REASONS_SHOWN - 1], f"waiting: for {len(lines) - _REASONS_SHOWN + 1} more reasons")
    return tuple(lines)


def _obstacles(reasons: Sequence[Reason]) -> Iterator[Reason]:
    found = [reason for reason in reasons if reason.kind not in _NO_OBSTACLES]
    harder = [reason for reason in found if reason.kind is not ReasonKind.BEHIND_OTHERS]
    yield from harder or found


def _named(tasks: Sequence[str]) -> str:
    more = f" and {len(tasks) - _TASKS_SHOWN} more" if len(tasks) > _TASKS_SHOWN else ""
    return f" ({', '.join(tasks[:_TASKS_SHOWN])}{more})"
