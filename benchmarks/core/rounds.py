"""
Measures several sides in turns, A B C A B C, so that a machine whose speed drifts slows all of them alike.

A side that cannot be measured here says why, and the others go on without it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from typing import Protocol

from benchmarks.core.figures import Side

__all__ = ["Measured", "Measurement", "NotHere", "in_turns", "side"]

Measurement = Callable[[], Awaitable[Mapping[str, float]]]
"""One round of one side: values by the name of the figure."""

Measured = Mapping[str, Sequence[Mapping[str, float]]]
"""The rounds of each side."""


class NotHere(Exception):
    """This side cannot be measured on this machine; the message says why."""


class Voice(Protocol):
    """Hears how it goes."""

    def __call__(self, words: str, /) -> None: ...


async def in_turns(
    sides: Mapping[str, Measurement],
    *,
    rounds: int,
    seconds: float = inf,
    say: Voice = lambda _: None,
    warm_up: bool = True,
) -> Measured:
    """
    Measure every side once a round.

    Args:
        rounds: at most.
        seconds: within which a round should end, the first one excepted; each is expected to take as long as those
            before.
        warm_up: a first round that is not counted.
    """
    measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in sides}
    began = time.monotonic()
    for number in range(-1 if warm_up else 0, rounds):
        if number > 0 and (time.monotonic() - began) * (number + 1) / number > seconds:
            break
        for name, measure in sides.items():
            values = await measure()
            shown = ", ".join(f"{each} {value:.4g}" for each, value in values.items())
            say(f"  {f'round {number + 1}' if number >= 0 else 'warm-up'}: {name}: {shown}")
            if number >= 0:
                measured[name].append(values)
    return measured


def side(name: str, figure: str, measured: Measured, missing: Mapping[str, str] | None = None) -> Side:
    """One side of one figure, out of what was measured."""
    samples = tuple(values[figure] for values in measured.get(name, ()) if figure in values)
    return Side(name=name, samples=samples, missing="" if samples else (missing or {}).get(name, "not measured"))
