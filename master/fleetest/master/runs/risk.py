"""
Which cases are likely to fail: those that did of late, and those whose files have changed since the run before.

Test selection at scale goes by the same signs (Memon et al., "Taming Google-Scale Continuous Testing", ICSE-SEIP 2017):
what failed recently fails again, and tests near a change fail more often than others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from fleetest.common.results import PlannedCase
from fleetest.master.store.ports import CaseHistory

__all__ = ["risks"]

_FAILED_LAST: Final = 0.5
_OWN_FILE_CHANGED: Final = 0.3
_SUBJECT_CHANGED: Final = 0.15
"""`pricing.py` is taken for the subject of `test_pricing.py`."""

_NEGLIGIBLE: Final = 0.05


def risks(
    cases: Sequence[PlannedCase], history: Mapping[str, CaseHistory], changed: Collection[str]
) -> Mapping[str, float]:
    """
    How likely each case is to fail, from 0 to 1, by id. Those of which nothing says so are left out.

    Args:
        changed: paths in the workspace.
    """
    subjects = {PurePosixPath(path).stem for path in changed}
    by_file = {case.file: _risk_of_file(case.file, changed, subjects) for case in cases}
    found = {case.case_id: _together(_risk_of_past(history.get(case.case_id)), by_file[case.file]) for case in cases}
    return {case_id: risk for case_id, risk in found.items() if risk >= _NEGLIGIBLE}


def _risk_of_past(known: CaseHistory | None) -> float:
    if known is None:
        return 0.0
    return max(known.failing, _FAILED_LAST if known.outcome.bad else 0.0)


def _risk_of_file(file: str, changed: Collection[str], subjects: Collection[str]) -> float:
    if file in changed:
        return _OWN_FILE_CHANGED
    stem = PurePosixPath(file).stem
    return _SUBJECT_CHANGED if {stem.removeprefix("test_"), stem.removesuffix("_test")} & set(subjects) else 0.0


def _together(one: float, other: float) -> float:
    """As if they had nothing to do with each other."""
    return 1 - (1 - one) * (1 - other)
