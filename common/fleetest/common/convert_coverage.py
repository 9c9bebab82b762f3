"""Between values of coverage and their messages: pure functions, two for each."""

from __future__ import annotations

from collections.abc import Iterable

from fleetest.common.convert_text import text_to_proto
from fleetest.common.coverage import CoverageTotals, FileCoverage
from fleetest.common.tasks import Coverage
from fleetest.v1 import types_pb2, worker_pb2

__all__ = [
    "coverage_from_proto",
    "coverage_to_proto",
    "coverage_totals_from_proto",
    "coverage_totals_to_proto",
    "file_coverage_to_proto",
    "file_coverages_from_proto",
]


def coverage_to_proto(value: Coverage) -> worker_pb2.Coverage:
    """Without the name of the task that combines: a worker has nothing to do with that."""
    return worker_pb2.Coverage(
        source=value.source, branch=value.branch, fail_under=value.fail_under, config=value.config
    )


def coverage_from_proto(message: worker_pb2.Coverage) -> Coverage:
    """What a worker is told."""
    return Coverage(
        source=tuple(message.source),
        branch=message.branch if message.HasField("branch") else None,
        fail_under=message.fail_under if message.HasField("fail_under") else None,
        config=message.config,
    )


def coverage_totals_to_proto(value: CoverageTotals) -> types_pb2.CoverageTotals:
    """For a file, or many."""
    return types_pb2.CoverageTotals(
        lines=value.lines, covered=value.covered, branches=value.branches, covered_branches=value.covered_branches
    )


def coverage_totals_from_proto(message: types_pb2.CoverageTotals) -> CoverageTotals:
    """For a file, or many."""
    return CoverageTotals(
        lines=message.lines,
        covered=message.covered,
        branches=message.branches,
        covered_branches=message.covered_branches,
    )


def file_coverage_to_proto(path: str, value: FileCoverage) -> types_pb2.FileCoverage:
    """A path that UTF-8 cannot carry is escaped."""
    return types_pb2.FileCoverage(
        path=text_to_proto(path),
        lines=value.lines,
        covered=value.covered,
        branches=value.branches,
        covered_branches=value.covered_branches,
    )


def file_coverages_from_proto(messages: Iterable[types_pb2.FileCoverage]) -> dict[str, FileCoverage]:
    """By path."""
    return {
        message.path: FileCoverage(
            lines=message.lines,
            covered=message.covered,
            branches=message.branches,
            covered_branches=message.covered_branches,
        )
        for message in messages
    }
