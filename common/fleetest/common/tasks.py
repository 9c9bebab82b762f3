"""
A task as every part of Fleetest sees it once its suite has been read: defaults applied, matrix expanded.

Times are `timedelta`, sizes bytes, cpu thousandths of a core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Final

import msgspec

from fleetest.common.load import LoadPlan

__all__ = [
    "CLUSTER_WIDE",
    "Access",
    "CachePolicy",
    "Coverage",
    "Input",
    "KeepWhen",
    "Need",
    "Network",
    "OnLost",
    "Probe",
    "Pull",
    "ReportOptions",
    "Resources",
    "RetryOn",
    "RunnerType",
    "Service",
    "Split",
    "Task",
    "Timeouts",
    "Use",
    "When",
    "variable_prefix",
]


CLUSTER_WIDE: Final = "cluster/"
"""Begins the name of a resource that all projects of a cluster share; any other is a project's own."""


class RunnerType(StrEnum):
    """How a worker runs a task."""

    PYTEST = "pytest"
    COMMAND = "command"
    COVERAGE = "coverage"
    SERVICE = "service"
    LOAD = "load"


class When(StrEnum):
    """Which end of a needed task lets the next one start; of a service, that it is ready."""

    PASSED = "passed"
    ALWAYS = "always"
    FAILED = "failed"
    READY = "ready"


class RetryOn(StrEnum):
    """What makes a case, or a command, run again. `errored` is retried without being asked."""

    FAILED = "failed"
    ERRORED = "errored"
    TIMED_OUT = "timed_out"


class Split(StrEnum):
    """What stays together in one shard."""

    CASE = "case"
    FILE = "file"
    GROUP = "group"


class Network(StrEnum):
    """What a task's container reaches while its tests run; `setup` always has the network."""

    NONE = "none"
    BRIDGE = "bridge"


class KeepWhen(StrEnum):
    """Of which attempts artifacts are kept."""

    ALWAYS = "always"
    FAILED = "failed"


class Pull(StrEnum):
    """When a task's image is pulled from its registry."""

    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"


class OnLost(StrEnum):
    """
    What becomes of a gang, one of whose members was lost: it begins again as a whole, goes on without, or ends.
    """

    ABORT = "abort"
    CONTINUE = "continue"
    END = "end"


class Access(StrEnum):
    """How a task uses a named resource."""

    SHARED = "shared"
    EXCLUSIVE = "exclusive"
    COUNTED = "counted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """
    What a task uses while its tests run, of a resource that only has a name: the system under test, a licence.

    Args:
        resource: `shop`, of the task's project; `cluster/shop`, of all projects.
        access: *exclusive* keeps out all other tasks, *shared* only those that want it exclusively; the shards of one
            task share what it has. *counted* takes `amount` for each shard.
        size: how many there are, of what is counted.
    """

    resource: str
    access: Access
    amount: int = 0
    size: int = 0

    def __str__(self) -> str:
        return f"{self.amount} of {self.resource}" if self.access is Access.COUNTED else self.resource


class Resources(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Amounts of what a worker has, or a task needs."""

    cpu_millis: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0

    def fits(self, room: Resources) -> bool:
        """Whether `room` has at least this much of everything."""
        return (
            self.cpu_millis <= room.cpu_millis
            and self.memory_bytes <= room.memory_bytes
            and self.disk_bytes <= room.disk_bytes
        )

    def at_most(self, most: Resources) -> Resources:
        """Of each resource the lesser of the two amounts."""
        if self.fits(most):
            return self
        return Resources(
            cpu_millis=min(self.cpu_millis, most.cpu_millis),
            memory_bytes=min(self.memory_bytes, most.memory_bytes),
            disk_bytes=min(self.disk_bytes, most.disk_bytes),
        )

    @classmethod
    def total(cls, parts: Sequence[Resources]) -> Resources:
        """All of them together."""
        return cls(
            cpu_millis=sum([part.cpu_millis for part in parts]),
            memory_bytes=sum([part.memory_bytes for part in parts]),
            disk_bytes=sum([part.disk_bytes for part in parts]),
        )

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            cpu_millis=self.cpu_millis + other.cpu_millis,
            memory_bytes=self.memory_bytes + other.memory_bytes,
            disk_bytes=self.disk_bytes + other.disk_bytes,
        )

    def __sub__(self, other: Resources) -> Resources:
        return Resources(
            cpu_millis=self.cpu_millis - other.cpu_millis,
            memory_bytes=self.memory_bytes - other.memory_bytes,
            disk_bytes=self.disk_bytes - other.disk_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A dependency: the task waits until `task` has ended, and is skipped when it did not end as `when` asks."""

    task: str
    when: When = When.PASSED


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """
    What a task takes of the artifacts that a needed one left: files that are put into its workspace.

    Args:
        task: that left them.
        files: globs of them, as under `artifacts`, each of which must match one; empty means all that there are.
        into: the directory below which they go, each by the path that it was left at; empty is the workspace's top.
        optional: whether there may be none.
    """

    task: str
    files: tuple[str, ...] = ()
    into: str = ""
    optional: bool = False


def variable_prefix(service: str) -> str:
    """How the variables begin that tell where a service is: `SHOP` for `shop`."""
    return "".join(character if character.isascii() and character.isalnum() else "_" for character in service.upper())


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """
    How a service is seen to be ready: by one of `http`, `tcp` and `shell`.

    Args:
        http: a path that it answers a GET of.
        status: of that answer.
        tcp: that its port takes a connection is enough.
        shell: a text for `/bin/sh` that ends with 0.
        interval: between two looks.
        timeout: from its start until it must be ready.
    """

    http: str = ""
    status: int = 200
    tcp: bool = False
    shell: str = ""
    interval: timedelta = timedelta(milliseconds=250)
    timeout: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    What a task is that is no test, but serves those that are.

    Args:
        port: on which it listens; 0: one that is free, which it learns from `PORT`.
        ports: on which it listens, too, by their names; likewise.
        publish: which of its ports others than its neighbours reach, by name, and under which number of its worker's
            machine; 0: one that is free. The name of `port` is empty.
        grace: between asking it to end and ending it.
    """

    ready: Probe
    port: int = 0
    ports: Mapping[str, int] = field(default_factory=dict)
    publish: Mapping[str, int] = field(default_factory=dict)
    grace: timedelta = timedelta(seconds=5)

    @property
    def all_ports(self) -> Mapping[str, int]:
        """By name; the first one has an empty name."""
        return {"": self.port, **self.ports}

    @property
    def published(self) -> bool:
        """Whether all of it can be reached from elsewhere."""
        return all(name in self.publish for name in self.all_ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """
    The four limits of a task; `None` means none.

    Args:
        queue: from queued until a worker takes it.
        start: from there until its tests start, setup included.
        silence: without a word from a running case.
        total: of one attempt, from start to end.
    """

    queue: timedelta | None = None
    start: timedelta | None = timedelta(minutes=10)
    silence: timedelta | None = timedelta(minutes=5)
    total: timedelta | None = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """
    How a task uses results of earlier runs.

    Args:
        inputs: globs of workspace files that results depend on besides what their tests import.
        sample: the share of cases, from 0 to 1, that is run although the cache has a result.
        inputs_digest: of the files that `inputs` name, and of what the task takes of others; empty without any. Known
            once it is submitted, of a task that takes something once that is there.
    """

    inputs: tuple[str, ...] = ()
    sample: float = 0.05
    inputs_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """
    How coverage.py measures what a task's tests execute. What is not said here, its own configuration says.

    Args:
        source: directories and packages; empty: as configured.
        branch: whether branches are measured; `None`: as configured.
        fail_under: the percentage below which the task that combines fails; `None`: as configured.
        config: its configuration file, relative to where the tests start; empty: it is looked for as usual.
        combined_by: the task that combines what this one and others measure; that task's own name in itself.
    """

    source: tuple[str, ...] = ()
    branch: bool | None = None
    fail_under: float | None = None
    config: str = ""
    combined_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """
    How reports are read.

    Args:
        form: their format; empty means that it is found out.
        fail_level: the risk from which on findings are failures; empty means medium.
    """

    form: str = ""
    fail_level: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    One node of a run's graph.

    Args:
        name: unique in the suite; matrix values are part of it, as in `unit[python=3.12]`.
        type: the kind of test, as the suite names it.
        runner: how it is run.
        args: pytest's arguments.
        command: argv of a command.
        shell: instead of `command`, a text for `/bin/sh`.
        cases: of a command, a text for `/bin/sh` that prints its cases; empty when it is one whole.
        image: of the container that it runs in; empty, it runs as processes of the worker's host.
        pull: when the image is pulled.
        network: of the container, while tests run.
        setup: shell lines that prepare the environment, once for each.
        setup_inputs: globs of the workspace files that decide what `setup` makes; empty means all of them.
        requirements: capabilities that a worker must have, exactly.
        resources: what a worker must have in all for one shard, and the most that a shard may use of memory. It
            reserves so much of its worker, unless earlier runs have shown what it really uses.
        shards: how many parts; `None` lets the planner decide.
        retries: how many more tries a case gets that ended as `retry_on` says.
        maxfail: stop the task after so many failures; 0 means never.
        last_failed: run only the cases that failed the last time (pytest's `--lf`).
        only_cases: run only these case ids; empty means all (set by `fleetest retry`).
        secrets: names of secrets that the task's environment needs.
        credentials: names of secrets, by the names of the variables that they fill.
        python: interpreter for the process executor; empty means the worker's.
        executor: `process` or `docker`; empty lets the worker decide.
        report_options: how reports are read, by the glob in `reports`, where it is not as usual.
        setup_digest: of all that decides what `setup` makes; empty without setup. Known once it is submitted.
        cache: how results of earlier runs are used; `None`: not at all.
        gang: its shards start together, and this becomes of them when one is lost; `None`: each starts when it can.
        uses: named resources that each of its shards needs while it runs; to collect its cases needs none.
        artifacts: globs of files to keep.
        artifacts_keep: for how long; zero: as long as is usual where it runs.
        artifacts_when: of which attempts.
        service: of a service, how it serves.
        load: of a load test, what is asked of it; its command is one text, which tells generators what to do.
        inputs: what it takes of the artifacts of those that it needs.
        workspace_digest: of the files that it runs on; empty means those of its run. Known once all that it needs have
            ended, of a task with inputs.
        coverage: how is measured what its tests execute; of a task that combines such measurements, how they were made.
    """

    name: str
    type: str
    runner: RunnerType = RunnerType.PYTEST
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    shell: str = ""
    cases: str = ""
    image: str = ""
    pull: Pull = Pull.MISSING
    network: Network = Network.BRIDGE
    setup: tuple[str, ...] = ()
    setup_inputs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    credentials: Mapping[str, str] = field(default_factory=dict)
    working_directory: str = ""
    python: str = ""
    executor: str = ""
    requirements: Mapping[str, str] = field(default_factory=dict)
    resources: Resources = Resources(cpu_millis=1000)
    priority: int = 50
    needs: tuple[Need, ...] = ()
    timeouts: Timeouts = Timeouts()
    retries: int = 0
    retry_on: frozenset[RetryOn] = frozenset({RetryOn.FAILED, RetryOn.TIMED_OUT})
    shards: int | None = None
    split: Split = Split.CASE
    maxfail: int = 0
    last_failed: bool = False
    only_cases: tuple[str, ...] = ()
    artifacts: tuple[str, ...] = ()
    artifacts_keep: timedelta = timedelta()
    artifacts_when: KeepWhen = KeepWhen.ALWAYS
    reports: tuple[str, ...] = ()
    report_options: Mapping[str, ReportOptions] = field(default_factory=dict)
    setup_digest: str = ""
    cache: CachePolicy | None = None
    uses: tuple[Use, ...] = ()
    gang: OnLost | None = None
    service: Service | None = None
    load: LoadPlan | None = None
    inputs: tuple[Input, ...] = ()
    workspace_digest: str = ""
    coverage: Coverage | None = None

    @property
    def served_by(self) -> tuple[str, ...]:
        """The services that must be ready while it runs."""
        return tuple(need.task for need in self.needs if need.when is When.READY)

    @property
    def secret_variables(self) -> Mapping[str, str]:
        """Names of secrets, by the names of the variables that they fill; what is in `secrets` keeps its name."""
        return {**{name: name for name in self.secrets}, **self.credentials}

    @property
    def planned(self) -> bool:
        """Whether its cases are collected first and dealt to shards."""
        return self.runner is RunnerType.PYTEST or bool(self.cases)
