"""
Reports that test tools write, read as results of cases.

    for case in read_report_file(Path("output.xml"), name="output.xml"):
        ...

One module for each format; `ports` says what a reader is, `formats` which one reads what. The readers are imported when
they are first asked for: a suite is read without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from fleetest.common.reports.ports import ReadOptions, ReportFormat, Risk

if TYPE_CHECKING:
    from fleetest.common.reports.reading import MAX_REPORT_BYTES, read_report, read_report_file

__all__ = ["MAX_REPORT_BYTES", "ReadOptions", "ReportFormat", "Risk", "read_report", "read_report_file"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fleetest.common.reports.reading"), name)
