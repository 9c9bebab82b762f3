"""The cases of a command that can tell them: they are listed first, and each shard is given its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from fleetest.common.errors import InvalidRequest
from fleetest.common.results import CaseResult, PlannedCase
from fleetest.common.states import Outcome
from fleetest.worker.ports import Environment

__all__ = ["CASES_VARIABLE", "CasesFile", "listing_argv", "results_for"]

CASES_VARIABLE: Final = "FLEETEST_CASES_FILE"
_MAX_LISTING_BYTES: Final = 64 << 20
_LONGEST_NAME: Final = 1000
# A command may put whatever it likes in the file's place: a link is not followed, and a pipe not waited for.
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def listing_argv(line: str) -> Sequence[str]:
    """A command that runs the line, with what it prints going to the file."""
    return "/bin/sh", "-c", f'exec >"${CASES_VARIABLE}"\n{line}'


class CasesFile:
    """A file of names of cases, one on each line, that agent and command share. For one command at a time."""

    def __init__(self, environment: Environment) -> None:
        self._path = environment.host_channel_directory / "cases"
        self.env: Mapping[str, str] = {CASES_VARIABLE: str(environment.channel_directory / "cases")}

    def write(self, case_ids: Iterable[str]) -> None:
        """Make it anew, so that no earlier command has it open. Raises OSError."""
        self._path.unlink(missing_ok=True)
        with os.fdopen(os.open(self._path, _CREATE, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{case_id}\n" for case_id in case_ids)
            os.fchmod(file.fileno(), 0o666)  # a container's user is another; what lies above keeps strangers out

    def read(self) -> list[PlannedCase]:
        """
        The cases that a listing has printed; blank lines are none.

        Raises:
            InvalidRequest: a name is there twice or is too long, or it is too much of it all.
            OSError
        """
        found: dict[str, PlannedCase] = {}
        for number, line in enumerate(self._text().splitlines(), start=1):
            name = line.strip()
            if len(name) > _LONGEST_NAME:
                raise InvalidRequest(f"`cases` printed a name of {len(name)} characters in line {number}")
            if name in found:
                hint = "Each case needs a name of its own."
                raise InvalidRequest(f"`cases` printed {name!r} twice, the second time in line {number}", hint=hint)
            if name:
                found[name] = PlannedCase(case_id=name)
        return list(found.values())

    def _text(self) -> str:
        with os.fdopen(os.open(self._path, _READ), "rb") as file:
            content = file.read(_MAX_LISTING_BYTES + 1)
        if len(content) > _MAX_LISTING_BYTES:
            raise InvalidRequest(f"`cases` printed more than {_MAX_LISTING_BYTES >> 20} MiB")
        return content.decode(errors="backslashreplace")


def results_for(case_ids: Sequence[str], reported: Sequence[CaseResult], command: CaseResult) -> Iterator[CaseResult]:
    """
    One result for each case that a command was given: from its reports or, when these say nothing at all, that of the
    command itself. A case that the reports leave out has not run, whatever became of the rest.

    Args:
        command: what became of the command, as a result.
    """
    by_id = {result.case_id: result for result in reported}
    if reported and command.outcome is not Outcome.TIMED_OUT:
        command = replace(command, outcome=Outcome.ERROR, message="the command's reports do not mention this case")
    for case_id in case_ids:
        yield by_id.get(case_id) or replace(command, case_id=case_id)
