"""
What tests have executed of files, as sets of lines, and how such sets become one.

A set of lines is a run of bytes: bit `line % 8` of byte `line // 8` says whether the line is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

__all__ = ["CoverageTotals", "FileCoverage", "merged", "totals_of"]


class FileCoverage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    Of one file.

    Args:
        lines: those that can be executed.
        covered: those that were.
        branches: how many ways lead on from lines with more than one; 0 where branches are not measured, or not yet
            counted.
        covered_branches: how many of these were taken.
    """

    lines: bytes = b""
    covered: bytes = b""
    branches: int = 0
    covered_branches: int = 0

    @property
    def totals(self) -> CoverageTotals:
        return CoverageTotals(
            lines=_count(self.lines),
            covered=_count(self.covered),
            branches=self.branches,
            covered_branches=self.covered_branches,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageTotals:
    """How much there is to execute, and how much was executed: of a file, or of many."""

    lines: int = 0
    covered: int = 0
    branches: int = 0
    covered_branches: int = 0

    @property
    def percent(self) -> float:
        """As coverage.py reckons: lines and branches count alike, and of nothing all is covered."""
        whole = self.lines + self.branches
        return 100 * (self.covered + self.covered_branches) / whole if whole else 100.0

    def __add__(self, other: CoverageTotals) -> CoverageTotals:
        return CoverageTotals(
            lines=self.lines + other.lines,
            covered=self.covered + other.covered,
            branches=self.branches + other.branches,
            covered_branches=self.covered_branches + other.covered_branches,
        )


def merged(one: FileCoverage, other: FileCoverage) -> FileCoverage:
    """
    What both together say of a file. Idempotent, and the order does not matter.

    Which branches were taken is not told, only how many: of those the higher number is sure.
    """
    return FileCoverage(
        lines=_union(one.lines, other.lines),
        covered=_union(one.covered, other.covered),
        branches=max(one.branches, other.branches),
        covered_branches=max(one.covered_branches, other.covered_branches),
    )


def totals_of(files: Mapping[str, FileCoverage]) -> CoverageTotals:
    """Of all files together."""
    return sum((file.totals for file in files.values()), CoverageTotals())


def _union(one: bytes, other: bytes) -> bytes:
    united = int.from_bytes(one, "little") | int.from_bytes(other, "little")
    return united.to_bytes(max(len(one), len(other)), "little")


def _count(bits: bytes) -> int:
    return int.from_bytes(bits, "little").bit_count()
