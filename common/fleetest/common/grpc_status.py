"""
Errors on their way over gRPC: one table, read in both directions.

The status message carries the error's message, the trailing metadata its hint and, for a suite, every problem as a
serialised `SuiteProblems`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import grpc

from fleetest.common.errors import (
    AlreadyExists,
    CapacityExceeded,
    DeadlinePassed,
    DependencyUnavailable,
    FleetestError,
    Forbidden,
    InvalidRequest,
    LeaseLost,
    NotFound,
    Unauthenticated,
    WrongState,
)
from fleetest.common.suite import Problem, SuiteInvalid
from fleetest.v1 import run_pb2

__all__ = ["STATUS_OF", "error_from", "status_of", "trailing_metadata_of"]

STATUS_OF: Final[dict[type[FleetestError], grpc.StatusCode]] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    LeaseLost: grpc.StatusCode.ABORTED,
    CapacityExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DependencyUnavailable: grpc.StatusCode.UNAVAILABLE,
    DeadlinePassed: grpc.StatusCode.DEADLINE_EXCEEDED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
}

_ERROR_OF: Final = {status: error for error, status in STATUS_OF.items()}
_HINT_KEY: Final = "fleetest-hint-bin"
_PROBLEMS_KEY: Final = "fleetest-problems-bin"

# gRPC peers refuse trailing metadata of more than 8 KiB in all; what does not fit stays in the status message.
_METADATA_BUDGET_BYTES: Final = 6 << 10


def status_of(error: FleetestError) -> grpc.StatusCode:
    """The status for an error, by the nearest class of its ancestry that the table knows."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS_OF:
            return STATUS_OF[ancestor]
    return grpc.StatusCode.INTERNAL


def trailing_metadata_of(error: FleetestError) -> tuple[tuple[str, bytes], ...]:
    """What the status message alone cannot carry."""
    metadata = []
    if error.hint:
        metadata.append((_HINT_KEY, error.hint.encode()[: _METADATA_BUDGET_BYTES // 4]))
    if isinstance(error, SuiteInvalid):
        metadata.append((_PROBLEMS_KEY, _pack_problems(error.problems)))
    return tuple(metadata)


def error_from(rpc_error: grpc.RpcError) -> FleetestError:
    """
    The error that the other side raised, or the nearest thing to it.

    A status that Fleetest does not send itself (UNKNOWN, INTERNAL, ...) becomes a plain `FleetestError`.
    """
    code = rpc_error.code()
    message = rpc_error.details() or code.name.lower()
    # grpc and grpc.aio have types of their own for it; both hold pairs.
    pairs = cast("Iterable[tuple[str, str | bytes]]", rpc_error.trailing_metadata() or ())
    metadata = {key: value for key, value in pairs if isinstance(value, bytes)}
    hint = metadata.get(_HINT_KEY, b"").decode(errors="replace")
    if code is grpc.StatusCode.INVALID_ARGUMENT and _PROBLEMS_KEY in metadata:
        return SuiteInvalid(_unpack_problems(metadata[_PROBLEMS_KEY]))
    return _ERROR_OF.get(code, FleetestError)(message, hint=hint)


def _pack_problems(problems: tuple[Problem, ...]) -> bytes:
    packed = run_pb2.SuiteProblems()
    for index, problem in enumerate(problems):
        packed.problems.add(
            source=problem.source,
            line=problem.line,
            column=problem.column,
            message=problem.message,
            hint=problem.hint,
        )
        if packed.ByteSize() > _METADATA_BUDGET_BYTES // 2:
            rest = len(problems) - index - 1
            if rest:
                packed.problems.add(source=problem.source, message=f"and {rest} more problems")
            break
    return packed.SerializeToString()


def _unpack_problems(packed: bytes) -> tuple[Problem, ...]:
    return tuple(
        Problem(source=each.source, line=each.line, column=each.column, message=each.message, hint=each.hint)
        for each in run_pb2.SuiteProblems.FromString(packed).problems
    )
