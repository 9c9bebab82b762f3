"""Tells cases of equal ids apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from fleetest.common.results import CaseResult

__all__ = ["told_apart"]


def told_apart(cases: Iterable[CaseResult]) -> Iterator[CaseResult]:
    """The cases in order; of equal ids the second is called `id #2`, and so on."""
    taken: set[str] = set()
    for case in cases:
        case_id, number = case.case_id, 1
        while case_id in taken:
            number += 1
            case_id = f"{case.case_id} #{number}"
        taken.add(case_id)
        yield case if number == 1 else replace(case, case_id=case_id)
