"""What a run's tests have executed, as far as it is known."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetest.common.coverage import CoverageTotals, FileCoverage, merged, totals_of
from fleetest.master.runs.events import CoverageUpdated

__all__ = ["MEASURED_FILES_AT_ONCE", "CoverageTable"]

MEASURED_FILES_AT_ONCE = 2000
"""As many files as one event tells of, unless it tells of all."""

_WORST = 10


@dataclass(slots=True)
class CoverageTable:
    """
    Of the tasks that one task combines.

    Args:
        files: by path.
        combined: whether that task has worked it out; before, running tests have told what there is.
    """

    files: dict[str, FileCoverage] = field(default_factory=dict)
    combined: bool = False
    totals: CoverageTotals = CoverageTotals()

    def news(self, told: Mapping[str, FileCoverage]) -> dict[str, FileCoverage]:
        """All that is known of the files of which `told` says more than was known. Nothing is, once it is combined."""
        if self.combined:
            return {}
        together = {path: merged(self.files.get(path, FileCoverage()), file) for path, file in told.items()}
        return {path: file for path, file in together.items() if self.files.get(path) != file}

    def totals_with(self, news: Mapping[str, FileCoverage]) -> CoverageTotals:
        """What the totals will be."""
        return totals_of({**self.files, **news})

    def take(self, event: CoverageUpdated) -> None:
        """It is in the log."""
        if event.combined:
            self.files.clear()
        self.files.update(event.files)
        self.combined, self.totals = event.combined, event.totals

    def worst(self) -> list[tuple[str, CoverageTotals]]:
        """Those with the most that was not executed."""
        found = ((path, file.totals) for path, file in self.files.items())
        lacking = ((path, totals) for path, totals in found if _lack(totals))
        return heapq.nsmallest(_WORST, lacking, key=lambda each: (-_lack(each[1]), each[0]))


def _lack(totals: CoverageTotals) -> int:
    return totals.lines - totals.covered + totals.branches - totals.covered_branches
