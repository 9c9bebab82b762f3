"""What a worker says of its attempts. An attempt's reports are in order, and the last of them is its `Ended`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from fleetest.common.results import Artifact, CaseResult, PlannedCase
from fleetest.worker.assignments import AttemptRef, Ended

__all__ = ["ArtifactsLeft", "HandedBack", "Output", "Planned", "Report", "ReportBody", "Results", "Running"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The environment is ready; tests start now."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """
    What a plan found. Files that could not be collected are `collection_errors`.

    Args:
        fingerprints: by file, a digest of what the results of its cases depend on, if the task asks for that.
    """

    cases: tuple[PlannedCase, ...]
    deselected: int = 0
    collection_errors: tuple[CaseResult, ...] = ()
    fingerprints: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Cases that are final."""

    results: tuple[CaseResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedBack:
    """Cases that the attempt will not run, as it was asked; perhaps none."""

    case_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A piece of the attempt's output. After a truncated one comes no other."""

    offset_bytes: int
    content: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactsLeft:
    """Files whose content has been stored already, and problems with those that could not be."""

    artifacts: tuple[Artifact, ...]
    problems: tuple[str, ...] = ()


ReportBody = Running | Planned | Results | HandedBack | Output | ArtifactsLeft | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One thing said of one attempt."""

    ref: AttemptRef
    at: datetime
    body: ReportBody
