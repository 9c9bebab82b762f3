"""Tells people, in the output of the task, what users of a load test ran into."""

from __future__ import annotations

import sys
import traceback
from collections import Counter

__all__ = ["ErrorTally", "tell_error"]

_NOT_THEIRS = ("/fleetest_load/", "/locust/", "<frozen ")
_MOST_KINDS = 200
_SHOWN = 20
_LONGEST = 300


def tell_error(error: BaseException) -> None:
    """The traceback of what somebody's code raised, from there on where it is that code."""
    trace = error.__traceback__
    while trace is not None and any(part in trace.tb_frame.f_code.co_filename for part in _NOT_THEIRS):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)


class ErrorTally:
    """Counts failed requests by what was wrong."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, request: str, error: BaseException) -> None:
        kind = f"{request}: {error or type(error).__name__}"[:_LONGEST]
        if kind in self._counts or len(self._counts) < _MOST_KINDS:
            self._counts[kind] += 1

    def tell(self) -> None:
        """The most frequent ones."""
        for kind, count in self._counts.most_common(_SHOWN):
            sys.stdout.write(f"{count:,} x {kind}\n")
        sys.stdout.flush()
