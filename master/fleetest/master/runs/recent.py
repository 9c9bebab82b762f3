"""The newest commits of runs that somebody follows here, ready to be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Final, Generic, TypeVar

from fleetest.master.runs.events import Event
from fleetest.master.store.ports import Commit

__all__ = ["Recent"]

_KEPT_BYTES: Final = 4 << 20
"""Of each followed run: a follower that is further behind reads the store."""

_EXPECTED_BYTES: Final = 64 << 10
_EXPECTED_RUNS: Final = 64
"""Of runs that have just begun here, and the newest of these: who submits a run mostly follows it at once."""

_Form = TypeVar("_Form")


@dataclass(slots=True)
class _Kept(Generic[_Form]):
    commit: Commit
    events: tuple[Event, ...]
    form: _Form | None = None


@dataclass(slots=True)
class _Run(Generic[_Form]):
    followers: int = 0
    size_bytes: int = 0
    commits: deque[_Kept[_Form]] = field(default_factory=deque)


class Recent(Generic[_Form]):
    """
    Spares those who follow a run the way to the store and back: this master knows what it has just committed. Each
    commit takes the form in which it is sent once, whoever follows.

    Args:
        form: makes what is sent of a commit.
    """

    def __init__(self, form: Callable[[Commit, tuple[Event, ...]], _Form]) -> None:
        self._form = form
        self._runs: dict[str, _Run[_Form]] = {}
        self._expected: dict[str, None] = {}  # those that have no follower yet, the oldest first

    @contextmanager
    def follow(self, run_id: str) -> Iterator[None]:
        """Commits of this run are kept while the context is open."""
        run = self._runs.setdefault(run_id, _Run())
        self._expected.pop(run_id, None)
        run.followers += 1
        try:
            yield
        finally:
            run.followers -= 1
            if not run.followers:
                del self._runs[run_id]

    def add(self, commit: Commit, events: tuple[Event, ...]) -> None:
        """This master has made a commit."""
        run = self._runs.get(commit.run_id) or (self._expect(commit.run_id) if commit.position == 1 else None)
        if run is None:
            return
        run.commits.append(_Kept(commit, events))
        run.size_bytes += len(commit.events)
        if not run.followers and run.size_bytes > _EXPECTED_BYTES:
            del self._runs[commit.run_id], self._expected[commit.run_id]
        while run.size_bytes > _KEPT_BYTES and len(run.commits) > 1:
            run.size_bytes -= len(run.commits.popleft().commit.events)

    def _expect(self, run_id: str) -> _Run[_Form]:
        run = self._runs[run_id] = _Run()
        self._expected[run_id] = None
        if len(self._expected) > _EXPECTED_RUNS:
            oldest = next(iter(self._expected))
            del self._runs[oldest], self._expected[oldest]
        return run

    def after(self, run_id: str, position: int) -> Sequence[_Form]:
        """
        The commits that follow this position without a gap; empty when the next one is not known here.
        """
        run = self._runs.get(run_id)
        if run is None:
            return ()
        # Most followers are near the end, and a run may have thousands of commits.
        newer = list(takewhile(lambda kept: kept.commit.position > position, reversed(run.commits)))
        found: list[_Form] = []
        for kept in reversed(newer):
            if kept.commit.position != position + 1:
                break
            if kept.form is None:
                kept.form = self._form(kept.commit, kept.events)
            position += 1
            found.append(kept.form)
        return found
