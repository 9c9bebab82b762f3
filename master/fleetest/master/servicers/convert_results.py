"""Results of cases between the wire and what the master keeps of them."""

from __future__ import annotations

from datetime import timedelta

from fleetest.common.convert import (
    cache_origin_to_proto,
    case_result_to_proto,
    check_time,
    duration_from_proto,
    outcome_from_proto,
    time_from_proto,
    time_to_proto,
)
from fleetest.common.results import CaseResult
from fleetest.master.runs.results import KeptResult
from fleetest.v1 import types_pb2

__all__ = ["kept_result", "put_result"]


def kept_result(message: types_pb2.CaseResult, clock_ahead: timedelta = timedelta()) -> KeptResult:
    """
    The result as it came, with its time by the cluster's clock.

    Args:
        clock_ahead: how far the clock of its worker is ahead. `message` is set right by it.

    Raises:
        InvalidRequest: a field that cannot be understood; whoever reads the rest later could not, either.
    """
    if message.HasField("started_at"):
        if clock_ahead:
            message.started_at.CopyFrom(time_to_proto(time_from_proto(message.started_at) - clock_ahead))
        else:
            check_time(message.started_at)
    return KeptResult(
        case_id=message.case_id,
        outcome=outcome_from_proto(message.outcome),
        duration=duration_from_proto(message.duration),
        file=message.file,
        line=message.line,
        uncacheable=message.uncacheable,
        whole=message.SerializeToString(),
    )


def put_result(result: KeptResult, message: types_pb2.CaseResult) -> None:
    """Fill an empty message with a result."""
    if result.whole:
        message.MergeFromString(result.whole)
        message.case_id = result.case_id  # under which it was accepted
    else:
        message.CopyFrom(case_result_to_proto(_of_our_own(result)))
    if result.cached_from is not None:
        message.cached_from.CopyFrom(cache_origin_to_proto(result.cached_from))


def _of_our_own(result: KeptResult) -> CaseResult:
    """One that a master gave, or that lies in a log from before results were kept whole."""
    return CaseResult(
        case_id=result.case_id,
        outcome=result.outcome,
        duration=result.duration,
        started_at=result.started_at,
        message=result.message,
        details=result.details,
        stdout=result.stdout,
        stderr=result.stderr,
        log=result.log,
        file=result.file,
        line=result.line,
        truncated=result.truncated,
        properties=result.properties,
    )
