"""Report files: tried before anything runs, written whole at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetest.client.reports.outcome import RunOutcome
from fleetest.client.whole_files import replacing
from fleetest.common.disk import disk_errors
from fleetest.common.errors import InvalidRequest

__all__ = ["ReportFile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """A report to be written to `path`, in the form that `form` gives it."""

    path: Path
    form: Callable[[RunOutcome], bytes]

    def check(self) -> None:
        """
        Make sure that the file can be written, its directory included; leaves a file that is there as it is.

        Raises:
            InvalidRequest: it cannot be.
        """
        try:
            if self.path.is_dir():
                raise IsADirectoryError(f"{self.path} is a directory")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            probe = self.path.with_name(f".{self.path.name[:100]}.probe")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise InvalidRequest(
                f"the report {str(self.path)!r} could not be written: {error.strerror or error}",
                hint="Name a file in a directory that you may write to.",
            ) from error

    def write(self, outcome: RunOutcome) -> None:
        """
        Raises:
            CapacityExceeded: the disk is full.
            DependencyUnavailable: it cannot be written any more.
        """
        with disk_errors(f"the report {self.path}"), replacing(self.path) as file:
            file.write(self.form(outcome))
