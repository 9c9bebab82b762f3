"""The key `reports`: which files hold results, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field

from fleetest.common.reports import ReportFormat, Risk
from fleetest.common.suite.fields import BY_VALUE, RelativePath, as_list
from fleetest.common.suite.section import Section
from fleetest.common.tasks import ReportOptions

__all__ = ["ReportModel", "Reports", "globs_of", "options_of"]


class ReportModel(Section):
    """Report files, and how they are read."""

    files: RelativePath = Field(description="A glob.")
    format: Annotated[ReportFormat | None, BY_VALUE] = Field(None, description="Of the files; else it is found out.")
    fail_level: Annotated[Risk, BY_VALUE] = Field(
        Risk.MEDIUM, description="Findings of this risk on are failures, in reports of scanners."
    )


def _as_models(value: object) -> object:
    """A glob alone is a mapping with `files`; one of either is a list of one."""
    items = [value] if isinstance(value, dict) else as_list(value)
    if not isinstance(items, list):
        return items
    return [item if isinstance(item, dict) else {"files": item} for item in items]


Reports = Annotated[
    list[ReportModel],
    BeforeValidator(_as_models, json_schema_input_type=list[RelativePath | ReportModel] | RelativePath | ReportModel),
]


def globs_of(reports: Sequence[ReportModel]) -> tuple[str, ...]:
    """Which files are meant."""
    return tuple(report.files for report in reports)


def options_of(reports: Sequence[ReportModel]) -> dict[str, ReportOptions]:
    """By glob; without those that leave all as it is."""
    options = {
        report.files: ReportOptions(form=report.format or "", fail_level=report.fail_level.value) for report in reports
    }
    usual = ReportOptions(fail_level=Risk.MEDIUM.value)
    return {glob: each for glob, each in options.items() if each != usual}
