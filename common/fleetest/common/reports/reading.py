"""Reads a report of any format that we know, whatever it holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

from fleetest.common.limits import MAX_CASES_PER_TASK
from fleetest.common.reports.bounds import bounded_case
from fleetest.common.reports.formats import READERS, format_of
from fleetest.common.reports.ports import ReadOptions, ReportFormat, Unreadable
from fleetest.common.reports.unique_ids import told_apart
from fleetest.common.results import CaseResult
from fleetest.common.states import Outcome

__all__ = ["MAX_REPORT_BYTES", "read_report", "read_report_file"]

MAX_REPORT_BYTES: Final = 8 << 30


def read_report(
    stream: BinaryIO,
    *,
    name: str,
    form: ReportFormat | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> Iterator[CaseResult]:
    """
    The cases of a report, in order. Equal ids are told apart by ` #2` and so on.

    Of a report that cannot be read, or not to its end, the last case has the outcome `error`, is called `name`, and
    says what is wrong and where. Nothing is raised.

    Args:
        stream: at its beginning, and seekable.
        name: of the report, for messages.
        form: how it is to be read; found out when `None`.
    """
    return told_apart(_read(stream, name, form, options))


def read_report_file(
    path: Path,
    *,
    name: str,
    form: ReportFormat | None = None,
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> Iterator[CaseResult]:
    """As `read_report`, of a file; one that cannot be opened is such a case, too."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_REPORT_BYTES:
            yield _broken(name, Unreadable(f"it is larger than {MAX_REPORT_BYTES >> 30} GiB"))
            return
        with path.open("rb") as stream:
            yield from read_report(stream, name=name, form=form, options=options)
    except OSError as error:
        yield _broken(name, Unreadable(f"cannot be read: {error.strerror}"))


def _read(stream: BinaryIO, name: str, form: ReportFormat | None, options: ReadOptions) -> Iterator[CaseResult]:
    try:
        reader = READERS[form or format_of(stream)]
        cases = reader(stream, options)
        yield from islice(cases, MAX_CASES_PER_TASK)
        if next(cases, None) is not None:
            yield _broken(name, Unreadable(f"it has more than {MAX_CASES_PER_TASK} cases; the others are left out"))
    except Unreadable as error:
        yield _broken(name, error)
    except OSError as error:
        yield _broken(name, Unreadable(f"cannot be read: {error.strerror or error}"))


def _broken(name: str, error: Unreadable) -> CaseResult:
    place = f"{name}:{error.line}" if error.line else name
    return bounded_case(
        case_id=name, outcome=Outcome.ERROR, message=f"{place}: {error.message}", file=name, line=error.line
    )
