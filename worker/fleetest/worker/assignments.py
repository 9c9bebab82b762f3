"""What a worker is told to do, and what it says of it: the values between agent, runners and executors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Protocol

import msgspec

from fleetest.common.coverage import FileCoverage
from fleetest.common.load import LoadSample
from fleetest.common.results import Artifact, CaseResult, PlannedCase, ResourceUsage
from fleetest.common.states import ShardKind, Verdict
from fleetest.common.tasks import Coverage, KeepWhen, Network, Pull, ReportOptions, Resources, Service
from fleetest.common.version_control import VersionControl

__all__ = ["Assignment", "AttemptRef", "Ended", "Reporter", "TaskSpec"]


class AttemptRef(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One try at a shard. The token fences it: a later attempt at the same shard has a higher one."""

    run_id: str
    shard_id: str
    token: int


class TaskSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker must know to run a task; see `TaskSpec` in `worker.proto` for each field."""

    spec_id: str
    environment_key: str
    task_id: str
    type: str
    project: str
    workspace_digest: str = ""
    command: tuple[str, ...] = ()
    shell: str = ""
    cases: str = ""
    setup: tuple[str, ...] = ()
    setup_digest: str = ""
    env: Mapping[str, str] = msgspec.field(default_factory=dict)
    working_directory: str = ""
    python: str = ""
    image: str = ""
    pull: Pull = Pull.MISSING
    network: Network = Network.BRIDGE
    executor: str = ""
    limits: Resources = Resources()
    start_timeout: timedelta | None = None
    silence_timeout: timedelta | None = None
    total_timeout: timedelta | None = None
    artifacts: tuple[str, ...] = ()
    artifacts_when: KeepWhen = KeepWhen.ALWAYS
    reports: tuple[str, ...] = ()
    report_options: Mapping[str, ReportOptions] = msgspec.field(default_factory=dict)
    secret_names: tuple[str, ...] = ()
    version_control: VersionControl = VersionControl()
    random_seed: int = 0
    fingerprints: bool = False
    cache_inputs: tuple[str, ...] = ()
    gang: bool = False
    service: Service | None = None
    run_network: str = ""
    coverage: Coverage | None = None

    @property
    def executor_name(self) -> str:
        """The executor that it asks for, or that its image implies."""
        return self.executor or ("docker" if self.image else "process")


class Assignment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    An attempt that this worker has.

    Args:
        number: of the attempt at its shard, from 1.
        case_ids: what to run, in order; empty for a plan and for a command.
        secrets: environment variables that must never be written down.
        reserve: how much of the worker's free room it takes, as the master reckons; `spec.limits` say what it may use.
        follows: it waits in the session of one that was given before it, and takes no room besides.
    """

    ref: AttemptRef
    spec: TaskSpec
    kind: ShardKind
    number: int = 1
    case_ids: tuple[str, ...] = ()
    shard_index: int = 0
    shard_count: int = 1
    secrets: Mapping[str, str] = msgspec.field(default_factory=dict)
    reserve: Resources = Resources()
    follows: bool = False

    def __repr__(self) -> str:
        """Secrets are nobody's business."""
        return f"Assignment(ref={self.ref!r}, kind={self.kind!r}, number={self.number})"


class Ended(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    How an attempt ended.

    Args:
        missing: cases that it was given and did not find in its own collection.
        extra: cases of its own collection that are not in the plan; at most 20.
    """

    verdict: Verdict
    reason: str = ""
    usage: ResourceUsage = ResourceUsage()
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()


class Reporter(Protocol):
    """
    Where a runner says what happens in one attempt. Calls return at once; delivery is somebody else's care.

    The attempt's end is not reported here but answered by the runner.
    """

    @property
    def failed(self) -> bool:
        """Whether a result was reported that is not good."""

    def running(self, notes: Sequence[str] = (), variables: Mapping[str, str] = MappingProxyType({})) -> None:
        """
        The environment is ready, tests start; or a service is ready, and `variables` say where. Called once.

        Args:
            notes: for the worker's log.
        """

    async def common_start(self) -> None:
        """
        After `running`: returns at the moment at which all shards of the task's gang begin; at once in any other task.

        Raises:
            TimeoutError: it did not come within the task's start timeout.
        """

    def planned(
        self,
        cases: Sequence[PlannedCase],
        *,
        deselected: int,
        collection_errors: Sequence[CaseResult],
        fingerprints: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`fingerprints` are digests, by file, of what the results of its cases depend on, if the task asks for it."""

    def result(self, result: CaseResult) -> None:
        """A case is final: its teardown is over."""

    def handed_back(self, case_ids: Sequence[str]) -> None:
        """The attempt does not run these cases, and never will; perhaps none."""

    def output(self, content: bytes) -> None:
        """What the attempt's processes wrote, as it came; the reporter bounds and masks it."""

    def loaded(self, sample: LoadSample) -> None:
        """What a generator of a load test did in one second."""

    def artifacts(self, artifacts: Sequence[Artifact], problems: Sequence[str]) -> None:
        """The content has been stored already."""

    def coverage_measured(self, files: Mapping[str, FileCoverage]) -> None:
        """Tests have executed this of files by now, by path relative to the workspace. Of others nothing is new."""

    def coverage_combined(self, files: Mapping[str, FileCoverage]) -> None:
        """All that the tests of the run have executed, of all files."""
