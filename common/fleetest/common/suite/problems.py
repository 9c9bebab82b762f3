"""What is wrong with a suite: every problem, each with its place in the file."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fleetest.common.errors import InvalidRequest

__all__ = ["MAX_PROBLEMS", "Fault", "Findings", "Hint", "Place", "Problem", "SuiteInvalid", "closest"]

MAX_PROBLEMS = 100
"""More than these are only counted: whoever has a hundred problems has one that makes the others."""


_FEW = 30

Hint = str | Callable[[], str]
"""What to do about a problem. A function is called only when the problem is shown."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """Where something stands in a file, both from 1; line 0 is the file as a whole."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """
    One thing that is wrong.

    Args:
        line: from 1; 0 when it belongs to the whole file.
        column: from 1, in characters; 0 when it belongs to the whole file.
        hint: what to do about it; may be empty.
    """

    source: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        hint = "".join(f"\n    {line}" for line in self.hint.splitlines())
        return f"{place}: {self.message}{hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    A problem before its place is known.

    Args:
        path: keys and indexes from the value that was looked at to the one that is wrong.
    """

    message: str
    hint: Hint = ""
    path: tuple[str | int, ...] = ()


class SuiteInvalid(InvalidRequest):
    """
    A suite cannot be used.

    Args:
        problems: all of them, at least one, in file order.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class Findings:
    """Gathers the problems of one file; the same one found twice (in each task that a matrix makes) counts once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: dict[tuple[Place, str], Hint] = {}

    def add(self, place: Place, message: str, hint: Hint = "") -> None:
        self._found.setdefault((place, message), hint)

    def __bool__(self) -> bool:
        return bool(self._found)

    def empty_copy(self) -> Findings:
        """For problems of the same file that may turn out to be none."""
        return Findings(self._source)

    def take(self, others: Findings) -> None:
        """They are problems."""
        for (place, message), hint in others._found.items():
            self.add(place, message, hint)

    def raise_if_any(self) -> None:
        """
        Raises:
            SuiteInvalid: something was found.
        """
        if self._found:
            raise self.error()

    def error(self) -> SuiteInvalid:
        """All that was found, in file order."""
        found = sorted(self._found.items(), key=lambda item: item[0][0])
        problems = [
            Problem(
                source=self._source,
                line=place.line,
                column=place.column,
                message=message,
                hint=hint if isinstance(hint, str) else hint(),
            )
            for (place, message), hint in found[:MAX_PROBLEMS]
        ]
        if len(found) > MAX_PROBLEMS:
            more = f"and {len(found) - MAX_PROBLEMS} more problems"
            problems.append(Problem(source=self._source, line=0, column=0, message=more))
        return SuiteInvalid(problems)


def closest(word: str, known: Iterable[str]) -> Hint:
    """`Did you mean 'shards'?` when a known word is close to this one; else the known words, when they are few."""

    def hint() -> str:
        # Comparing costs time with number and length; nobody misspells a word of a thousand letters.
        words = [other for other in itertools.islice(known, 1000) if len(other) <= 100]  # noqa: PLR2004 - see above
        near = difflib.get_close_matches(word[:100], words, n=1)
        if near:
            return f"Did you mean '{near[0]}'?"
        return f"Known here: {', '.join(words)}." if 0 < len(words) <= _FEW else ""

    return hint
