"""
Reports that test tools write, read as results of cases.

    for case in read_report_file(Path("output.xml"), name="output.xml"):
        ...

One module for each format; `ports` says what a reader is, `formats` which one reads what.
"""

from __future__ import annotations

from fleetest.common.reports.ports import ReadOptions, ReportFormat, Risk
from fleetest.common.reports.reading import MAX_REPORT_BYTES, read_report, read_report_file

__all__ = ["MAX_REPORT_BYTES", "ReadOptions", "ReportFormat", "Risk", "read_report", "read_report_file"]
