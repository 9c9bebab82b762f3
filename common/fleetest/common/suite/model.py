"""
The suite file as a pydantic model: one description for reading it, and for the JSON Schema that editors use.

Defaults are those of `fleetest.common.tasks.Task`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    WithJsonSchema,
)

from fleetest.common.suite.environments import EnvironmentModel
from fleetest.common.suite.fields import (
    BY_VALUE,
    CapabilityName,
    Duration,
    EnvName,
    Keep,
    Line,
    MatrixValue,
    Placeholder,
    PoolName,
    PoolSize,
    RelativePath,
    RelativePaths,
    ResourceName,
    SecretNames,
    Shards,
    ShellLines,
    Size,
    Text,
    Usage,
    as_list,
    as_text,
    describe,
    refused,
)
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.section import Section
from fleetest.common.tasks import KeepWhen, Network, Pull, RetryOn, Task, When

__all__ = [
    "DefaultsModel",
    "InputModel",
    "InputsModel",
    "MatrixModel",
    "NeedModel",
    "NeedsModel",
    "RequiresModel",
    "SuiteModel",
    "TaskModel",
    "TimeoutsModel",
]

_MAX_MATRIX_ENTRIES: Final = 256
_DEFAULT: Final = Task(name="", type="")


class TimeoutsModel(Section):
    """Limits as durations (`30s`, `5m`, `1h30m`); `none` lifts one."""

    queue: Duration = Field(_DEFAULT.timeouts.queue, description="From queued until a worker takes the task.")
    start: Duration = Field(_DEFAULT.timeouts.start, description="From there until its tests start, setup included.")
    silence: Duration = Field(_DEFAULT.timeouts.silence, description="Without a word from a running case.")
    total: Duration = Field(_DEFAULT.timeouts.total, description="Of one attempt, from start to end.")


class RequiresModel(Section):
    """What a worker must have, and what each shard reserves there."""

    capabilities: dict[CapabilityName, Line] = Field(
        {}, description="Capabilities that a worker must have, exactly: `os: linux`."
    )
    cpu: Annotated[float, Field(ge=0, le=4096, allow_inf_nan=False)] = Field(
        _DEFAULT.resources.cpu_millis / 1000, description="Cores that a shard reserves, to a thousandth."
    )
    memory: Size = Field(
        _DEFAULT.resources.memory_bytes, description="Memory that a shard reserves, and may use at most: `2GiB`."
    )
    disk: Size = Field(_DEFAULT.resources.disk_bytes, description="Disk that a shard reserves: `10GiB`.")


class NeedModel(Section):
    """How a needed task must end."""

    when: Annotated[When, BY_VALUE] = Field(When.PASSED, description="Which end of it lets this task start.")


def _needs_as_mapping(value: object) -> object:
    """Of `unit`, `[unit, lint]`, `{unit: always}` and `{unit: {when: always}}` the last form."""
    if isinstance(value, dict):
        return {name: need if isinstance(need, dict) else {"when": need} for name, need in value.items()}
    names = as_list(value)
    if not isinstance(names, list):
        raise refused(Fault(message=f"must be names of tasks, not {describe(names)}"))
    faults = [
        Fault(message=f"must be a task's name, not {describe(name)}", path=(index,))
        for index, name in enumerate(names)
        if isinstance(name, list | dict | None)
    ]
    if faults:
        raise refused(*faults)
    return {as_text(name): {} for name in names}


_Needs = Annotated[
    dict[str, NeedModel],
    BeforeValidator(
        _needs_as_mapping, json_schema_input_type=str | list[str] | dict[str, When | Placeholder | NeedModel]
    ),
]


class NeedsModel(RootModel[_Needs]):
    """Needed tasks by name."""

    model_config = ConfigDict(title="Needs")


class InputModel(Section):
    """What is taken of the artifacts of a needed task."""

    files: RelativePaths = Field([], description="Globs of them; without any, all that it left.")
    into: RelativePath = Field("", description="The directory below which they go; else the workspace's top.")
    optional: bool = Field(default=False, description="Whether it may have left none.")


def _inputs_as_mapping(value: object) -> object:
    """Of `login`, `[login, build]`, `{login: state.json}` and `{login: {files: [state.json]}}` the last form."""
    if isinstance(value, dict):
        return {name: taken if isinstance(taken, dict) else {"files": taken} for name, taken in value.items()}
    return _needs_as_mapping(value)


_Inputs = Annotated[
    dict[str, InputModel],
    BeforeValidator(
        _inputs_as_mapping, json_schema_input_type=str | list[str] | dict[str, str | list[str] | InputModel]
    ),
]


class InputsModel(RootModel[_Inputs]):
    """What is taken, by the names of the tasks that leave it."""

    model_config = ConfigDict(title="Inputs")


class MatrixModel(Section):
    """Axes and their values; the task is repeated for every combination."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[list[MatrixValue], Field(min_length=1)]]

    exclude: list[dict[str, MatrixValue]] = Field(
        [],
        max_length=_MAX_MATRIX_ENTRIES,
        description="Combinations to leave out; an axis not named means any value.",
    )
    include: list[dict[str, MatrixValue]] = Field(
        [], max_length=_MAX_MATRIX_ENTRIES, description="Further combinations; each names every axis."
    )


class DefaultsModel(Section):
    """What every task has that doesn't say otherwise; but for keys of single kinds (`fleetest.common.kinds`)."""

    type: Line = Field(
        _DEFAULT.type, description="What kind of test it runs; when absent, `args`, `command` or `run` tell."
    )
    image: Line = Field(_DEFAULT.image, description="Container image, for the docker executor.")
    pull: Annotated[Pull, BY_VALUE] = Field(_DEFAULT.pull, description="When the image is pulled.")
    network: Annotated[Network, BY_VALUE] = Field(
        _DEFAULT.network, description="What its container reaches while tests run; `setup` always has the network."
    )
    setup: ShellLines = Field([], description="Shell lines that prepare the environment, once for each.")
    setup_inputs: RelativePaths = Field(
        [], description="Globs of the files that decide what `setup` makes; without any, all files do."
    )
    env: dict[EnvName, Text] = Field({}, description="Environment variables.")
    secrets: SecretNames = Field(
        [], description="Names of secrets that the environment needs; `fleetest run --secret NAME` gives them."
    )
    python: Line = Field(_DEFAULT.python, description="Interpreter of the process executor; else the worker's own.")
    working_directory: RelativePath = Field(
        _DEFAULT.working_directory, description="Where the tests start, relative to the workspace."
    )
    executor: Annotated[Literal["", "process", "docker"], WithJsonSchema({"enum": ["process", "docker"]})] = Field(
        "", description="How the task is run; when absent, `docker` with an image, else `process`."
    )
    requires: RequiresModel = Field(default_factory=RequiresModel, description="What a worker must have.")
    uses: dict[ResourceName, Usage] = Field(
        {},
        description="Named resources that its tests use: `shared`, `exclusive`, or how many of a pool for each shard.",
    )
    priority: int = Field(_DEFAULT.priority, ge=0, le=100, description="Higher ones run first.")
    timeouts: TimeoutsModel = Field(default_factory=TimeoutsModel, description="Limits of time.")
    retries: int = Field(
        _DEFAULT.retries, ge=0, le=100, description="How many more tries a case gets that ended as `retry_on` says."
    )
    retry_on: Annotated[
        list[Annotated[RetryOn, BY_VALUE]],
        BeforeValidator(as_list, json_schema_input_type=list[RetryOn] | RetryOn),
    ] = Field(
        default=sorted(_DEFAULT.retry_on),
        description="What uses up `retries`. What the infrastructure broke is repeated without being asked.",
    )
    shards: Shards = Field(
        _DEFAULT.shards, description="How many parts the cases are split into; of a command, how often it is started."
    )
    artifacts: RelativePaths = Field([], description="Globs of the files to keep.")
    artifacts_keep: Keep = Field(
        None,
        description="For how long they are kept: `12h`, `30d`; when absent, as long as the master keeps artifacts.",
    )
    artifacts_when: Annotated[KeepWhen, BY_VALUE] = Field(
        _DEFAULT.artifacts_when, description="Of which attempts: `failed` are those that did not pass."
    )
    matrix: MatrixModel = Field(
        default_factory=MatrixModel, description="Repeat the task for every combination of values."
    )


class TaskModel(DefaultsModel):
    """One task, but for the keys of its kind."""

    needs: NeedsModel = Field(
        default_factory=lambda: NeedsModel({}),
        description="Tasks that must end first: their names, or a mapping of name to `when`.",
    )
    inputs: InputsModel = Field(
        default_factory=lambda: InputsModel({}),
        description="Artifacts that are put into the workspace: names of tasks, or a mapping of name to globs. Who is "
        "named here is needed.",
    )


def _version_one(value: int) -> int:
    if value != 1:
        raise refused(Fault(message=f"this Fleetest reads version 1, not {value}", hint="Write `version: 1`."))
    return value


class SuiteModel(Section):
    """A suite of tests for Fleetest."""

    version: Annotated[int, AfterValidator(_version_one), Field(json_schema_extra={"const": 1})] = Field(
        description="Of this format."
    )
    name: Line = Field(description="What the suite is called.")
    project: Line = Field("", description="What history and fair share are kept by; else the client decides.")
    supersede: Annotated[Literal["", "branch"], WithJsonSchema({"const": "branch"})] = Field(
        "", description="`branch`: a new run cancels older ones of the same project, suite and branch."
    )
    fail_fast: bool = Field(default=False, description="The first task that fails cancels the rest of the run.")
    pools: dict[PoolName, PoolSize] = Field(
        {}, description="How many there are of what tasks use a number of, in all runs of the project together."
    )
    environment: Line = Field("", description="Which of the environments a run is in that names none.")
    environments: dict[str, EnvironmentModel] = Field({}, description="Places where the suite can be run, by name.")
    defaults: DefaultsModel = Field(
        default_factory=DefaultsModel, description="Keys for every task that doesn't have them itself."
    )
    tasks: dict[str, TaskModel] = Field(description="The tasks by name.")
