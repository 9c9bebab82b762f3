"""The reports that a command leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fleetest.common.reports import MAX_REPORT_BYTES, ReadOptions, ReportFormat, Risk, read_report_file
from fleetest.common.reports.unique_ids import told_apart
from fleetest.common.results import CaseResult
from fleetest.common.tasks import ReportOptions
from fleetest.worker.artifacts import matching_files
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.ports import Environment

__all__ = ["CommandReports"]

_Stamp = tuple[int, int, int]


class CommandReports:
    """Those that a task names. For one command; its methods block."""

    def __init__(self, spec: TaskSpec, environment: Environment) -> None:
        self._spec = spec
        self._environment = environment
        self._before: dict[Path, _Stamp] = {}

    def look(self) -> None:
        """Before the command: a file that is there already is somebody else's, unless it changes."""
        self._before = {path: _stamp(path) for path in self._files()}

    def read(self) -> Iterator[CaseResult]:
        """After it: the cases of the reports that it has written, read as they are asked for."""
        written = {path: options for path, options in self._files().items() if self._before.get(path) != _stamp(path)}
        return told_apart(case for path, options in written.items() for case in self._cases(path, options))

    def _files(self) -> dict[Path, ReportOptions]:
        """Each with the options of the first glob that matches it."""
        found: dict[Path, ReportOptions] = {}
        for glob in self._spec.reports:
            paths, _ = matching_files(self._environment.host_source, [glob], MAX_REPORT_BYTES)
            options = self._spec.report_options.get(glob, ReportOptions())
            found = dict.fromkeys(paths, options) | found
        return found

    def _cases(self, path: Path, options: ReportOptions) -> Iterator[CaseResult]:
        return read_report_file(
            path,
            name=str(path.relative_to(self._environment.host_source)),
            form=ReportFormat(options.form) if options.form else None,
            options=ReadOptions(
                root=str(self._environment.source),
                fail_level=Risk(options.fail_level) if options.fail_level else Risk.MEDIUM,
            ),
        )


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
