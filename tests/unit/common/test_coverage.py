from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.convert_coverage import (
    coverage_from_proto,
    coverage_to_proto,
    file_coverage_to_proto,
    file_coverages_from_proto,
)
from fleetest.common.coverage import CoverageTotals, FileCoverage, merged, totals_of
from fleetest.common.tasks import Coverage
from tests.support.line_sets import bits_of

lines = st.sets(st.integers(1, 60))
files = st.builds(
    lambda known, covered: FileCoverage(lines=bits_of(known), covered=bits_of(covered)), known=lines, covered=lines
)


@given(lines, lines)
def test_together_sessions_have_executed_what_any_of_them_has(one: set[int], other: set[int]) -> None:
    united = merged(FileCoverage(covered=bits_of(one)), FileCoverage(covered=bits_of(other)))

    assert united.covered == bits_of(one | other)
    assert united.totals.covered == len(one | other)


@given(files, files, files)
def test_it_does_not_matter_in_which_order_and_how_often_sessions_tell(
    one: FileCoverage, two: FileCoverage, three: FileCoverage
) -> None:
    assert merged(one, two) == merged(two, one)
    assert merged(merged(one, two), three) == merged(one, merged(two, three))
    assert merged(merged(one, two), two) == merged(one, two)


def test_lines_and_branches_count_alike() -> None:
    file = FileCoverage(lines=bits_of([1, 2, 3, 4]), covered=bits_of([1, 2, 3]), branches=4, covered_branches=1)

    totals = totals_of({"a.py": file, "empty.py": FileCoverage()})

    assert totals == CoverageTotals(lines=4, covered=3, branches=4, covered_branches=1)
    assert totals.percent == 50
    assert CoverageTotals().percent == 100


def test_what_a_file_and_a_task_say_of_coverage_comes_out_as_it_went_in() -> None:
    file = FileCoverage(lines=b"\xff", covered=b"\x0f", branches=3, covered_branches=2)
    asked = Coverage(source=("src",), branch=False, fail_under=0.0, config="cov.toml")

    assert file_coverages_from_proto([file_coverage_to_proto("a.py", file)]) == {"a.py": file}
    assert coverage_from_proto(coverage_to_proto(asked)) == asked
    assert coverage_from_proto(coverage_to_proto(Coverage())) == Coverage()
