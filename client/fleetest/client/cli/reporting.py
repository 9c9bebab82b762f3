"""Report files of a run that was followed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fleetest.client.reports.ctrf import ctrf_json
from fleetest.client.reports.files import ReportFile
from fleetest.client.reports.junit import junit_xml
from fleetest.client.reports.outcome import RunOutcome
from fleetest.client.view.fold import RunView

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient

__all__ = ["checked_reports", "write_reports"]


def checked_reports(junit: Path | None, ctrf: Path | None) -> list[ReportFile]:
    """
    The reports that were asked for.

    Raises:
        InvalidRequest: one could not be written.
    """
    asked = ((junit, junit_xml), (ctrf, ctrf_json))
    reports = [ReportFile(path=path, form=form) for path, form in asked if path is not None]
    for report in reports:
        report.check()
    return reports


async def write_reports(client: AsyncClient, view: RunView, reports: list[ReportFile]) -> None:
    """
    Raises:
        CapacityExceeded, DependencyUnavailable: one could not be written after all.
    """
    if not reports:
        return
    run = await client.get_run(view.run_id)
    cases = [record async for record in client.cases(view.run_id)]
    earlier = {
        (task.task_id, case_id): case.earlier
        for task in view.tasks.values()
        for case_id, case in task.cases.items()
        if case.earlier
    }
    outcome = RunOutcome(run=run, cases=cases, earlier=earlier)
    for report in reports:
        report.write(outcome)
