"""Any command: its exit code is the verdict, unless it leaves reports."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fleetest.common.kinds.gang import Gang
from fleetest.common.kinds.kind import Work
from fleetest.common.kinds.report_keys import Reports, globs_of, options_of
from fleetest.common.suite.fields import Text
from fleetest.common.suite.section import Section
from fleetest.common.tasks import RunnerType

__all__ = ["Command", "CommandKeys"]


class CommandKeys(Section):
    """Keys of a command task."""

    command: Annotated[list[Text], Field(min_length=1)] = Field([], description="A program and its arguments.")
    run: Text = Field("", description="Instead of `command`: text for `/bin/sh`.")
    cases: Text = Field(
        "",
        description="Text for `/bin/sh` that prints the names of the command's cases, one on each line. They are dealt "
        "to shards, and each shard finds its own in the file $FLEETEST_CASES_FILE.",
    )
    gang: Gang = Field(None, description="Start all shards together, or none of them.")
    reports: Reports = Field(
        [], description="Report files that become the command's cases: globs, or mappings that say how they are read."
    )


class Command:
    """Fulfils `Kind` for commands."""

    name = "command"
    keys = CommandKeys
    one_of = ("command", "run")
    example = "run: make check"
    implied_by = one_of

    def work(self, keys: CommandKeys) -> Work:
        return Work(
            runner=RunnerType.COMMAND,
            command=tuple(keys.command),
            shell=keys.run,
            cases=keys.cases,
            reports=globs_of(keys.reports),
            report_options=options_of(keys.reports),
            gang=keys.gang.on_lost if keys.gang else None,
        )
