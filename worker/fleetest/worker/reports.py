"""What a worker says of its attempts. An attempt's reports are in order, and the last of them is its `Ended`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fleetest.common.coverage import FileCoverage
from fleetest.common.load import LoadSample
from fleetest.common.results import Artifact, CaseResult, PlannedCase, ResourceUsage
from fleetest.worker.assignments import AttemptRef, Ended

__all__ = [
    "ArtifactsLeft",
    "CoverageMeasured",
    "Done",
    "HandedBack",
    "Loaded",
    "Output",
    "Planned",
    "Report",
    "ReportBody",
    "Results",
    "Running",
]


class Running(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The environment is ready; tests start now. Or a service is ready, and `variables` say where."""

    variables: Mapping[str, str] = msgspec.field(default_factory=dict)


class Planned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """
    What a plan found. Files that could not be collected are `collection_errors`.

    Args:
        fingerprints: by file, a digest of what the results of its cases depend on, if the task asks for that.
    """

    cases: tuple[PlannedCase, ...]
    deselected: int = 0
    collection_errors: tuple[CaseResult, ...] = ()
    fingerprints: Mapping[str, str] = msgspec.field(default_factory=dict)


class Results(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Cases that are final."""

    results: tuple[CaseResult, ...]


class HandedBack(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Cases that the attempt will not run, as it was asked; perhaps none."""

    case_ids: tuple[str, ...]


class Output(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A piece of the attempt's output. After a truncated one comes no other."""

    offset_bytes: int
    content: bytes
    truncated: bool = False


class ArtifactsLeft(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Files whose content has been stored already, and problems with those that could not be."""

    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...] = ()


class Loaded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a generator of a load test did in one second."""

    sample: LoadSample


class CoverageMeasured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What tests have executed of these files, by path; `combined`: all that the run's tests have, of all files."""

    files: Mapping[str, FileCoverage]
    combined: bool = False


class Done(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that a short attempt said that went well: that it was running, these results, and its end."""

    results: tuple[CaseResult, ...]
    usage: ResourceUsage = ResourceUsage()


ReportBody = (
    Running | Planned | Results | HandedBack | Output | ArtifactsLeft | CoverageMeasured | Loaded | Done | Ended
)


class Report(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing said of one attempt."""

    ref: AttemptRef
    body: ReportBody
