"""Robot Framework suites: `robot` runs them, and its `output.xml` is their results."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.fields import Arguments, Line, RelativePath, Text, as_list
from fleetest.common.suite.section import Section
from fleetest.common.tasks import ReportOptions, RunnerType

__all__ = ["Robot", "RobotKeys"]

_RESULTS: Final = "robot-results"
_OUTPUT: Final = f"**/{_RESULTS}/output.xml"

_Suites = Annotated[
    list[RelativePath],
    BeforeValidator(as_list, json_schema_input_type=list[RelativePath] | RelativePath),
    Field(min_length=1),
]
_Tags = Annotated[list[Line], BeforeValidator(as_list, json_schema_input_type=list[Line] | Line)]


class RobotKeys(Section):
    """Keys of a Robot Framework task."""

    suites: _Suites = Field(description="Suite files and directories.")
    include: _Tags = Field([], description="Tags, or patterns of tags, of the tests to run.")
    exclude: _Tags = Field([], description="Tags, or patterns of tags, of the tests to leave out.")
    variables: dict[Line, Text] = Field({}, description="Variables of the suites.")
    args: Arguments = Field([], description="Further options of robot: a list, or a text split as a shell does.")


class Robot:
    """Fulfils `Kind` for Robot Framework suites."""

    name = "robot"
    keys = RobotKeys
    one_of: tuple[str, ...] = ("suites",)
    example = "suites: [tests]"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: RobotKeys) -> Work:
        options = [("--include", tag) for tag in keys.include] + [("--exclude", tag) for tag in keys.exclude]
        options += [("--variable", f"{name}:{value}") for name, value in keys.variables.items()]
        return Work(
            runner=RunnerType.COMMAND,
            command=(
                *("robot", "--outputdir", _RESULTS, "--output", "output.xml", "--consolecolors", "off"),
                *(word for option in options for word in option),
                *keys.args,
                *keys.suites,
            ),
            reports=(_OUTPUT,),
            report_options={_OUTPUT: ReportOptions(form="robot")},
            artifacts=(f"**/{_RESULTS}",),
        )
