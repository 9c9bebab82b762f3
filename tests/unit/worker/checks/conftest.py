"""Runs files of checks as a user's pytest does, in this process, against a shop that is open."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent

import httpcore  # noqa: F401 - imported once, not by each inner pytest
import pytest

from fleetest.worker.checks import items  # noqa: F401 - imported once, not by each inner pytest
from tests.support.shop import open_shop


@pytest.fixture
def shop():
    with open_shop() as shop:
        yield shop


@dataclass
class Ran:
    reports: dict[str, pytest.TestReport]
    collection: str

    @property
    def outcomes(self):
        return {name: report.outcome for name, report in self.reports.items()}

    def failed(self, name):
        return {each["name"]: each["message"] for each in self.reports[name].fleetest_assertions if not each["passed"]}

    def text(self, name):
        return self.reports[name].longreprtext


@pytest.fixture
def run(pytester, shop):
    def run_file(text, *args, name="shop.rest.yaml", base_url=None):
        pytester.path.joinpath(name).write_text(dedent(text))
        recorded = pytester.inline_run(
            "-p",
            "no:asyncio",
            "-p",
            "fleetest.worker.checks.plugin",
            f"--checks-base-url={base_url or shop.url}",
            *args,
        )
        collected = [report for report in recorded.getreports("pytest_collectreport") if report.failed]
        calls = [report for report in recorded.getreports("pytest_runtest_logreport") if report.when == "call"]
        return Ran(
            reports={report.nodeid.rpartition("::")[2]: report for report in calls},
            collection="\n".join(report.longreprtext for report in collected),
        )

    return run_file
