"""
Errors on their way over gRPC: one table, read in both directions.

The status message carries the error's message, the trailing metadata its hint and, for a suite, every problem as a
serialised `SuiteProblems`. gRPC peers refuse a status of more than 8 KiB in all, so each part is cut to its share.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import grpc
from google.protobuf.message import DecodeError

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

__all__ = ["STATUS_OF", "details_of", "error_from", "status_of", "trailing_metadata_of"]

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

_ERROR_OF: Final[dict[grpc.StatusCode, type[FleetestError]]] = {
    **{status: error for error, status in STATUS_OF.items()},
    grpc.StatusCode.CANCELLED: DependencyUnavailable,  # by the other side, which goes away in order
}
_HINT_KEY: Final = "fleetest-hint-bin"
_PROBLEMS_KEY: Final = "fleetest-problems-bin"

# Shares of 8 KiB, as they are sent: binary metadata as base64 (4 bytes for 3), the message percent-encoded.
_MESSAGE_BYTES: Final = 1800
_HINT_BYTES: Final = 1000
_PROBLEMS_BYTES: Final = 3000
_PROBLEM_TEXT_BYTES: Final = 1000
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}


def status_of(error: FleetestError) -> grpc.StatusCode:
    """The status for an error, by the nearest class of its ancestry that the table knows."""
    for ancestor in type(error).__mro__:
        if ancestor in STATUS_OF:
            return STATUS_OF[ancestor]
    return grpc.StatusCode.INTERNAL


def details_of(error: FleetestError) -> str:
    """The status message: the error's own, cut where it would be too long to be sent."""
    message = error.message.encode("utf-8", "backslashreplace")
    room = _MESSAGE_BYTES
    for index, byte in enumerate(message):
        room -= 1 if byte in _PLAIN else 3
        if room < 0:
            return message[:index].decode("utf-8", "ignore") + " [...]"
    return message.decode()


def trailing_metadata_of(error: FleetestError) -> tuple[tuple[str, bytes], ...]:
    """What the status message alone cannot carry."""
    metadata = []
    if error.hint:
        metadata.append((_HINT_KEY, _cut(error.hint, _HINT_BYTES).encode()))
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
    problems = _unpack_problems(metadata.get(_PROBLEMS_KEY, b""))
    if code is grpc.StatusCode.INVALID_ARGUMENT and problems:
        return SuiteInvalid(problems)
    hint = metadata.get(_HINT_KEY, b"").decode(errors="replace")
    return _ERROR_OF.get(code, FleetestError)(message, hint=hint)


def _pack_problems(problems: tuple[Problem, ...]) -> bytes:
    packed = run_pb2.SuiteProblems()
    for index, problem in enumerate(problems):
        message = run_pb2.SuiteProblem(
            source=_cut(problem.source, _PROBLEM_TEXT_BYTES // 2),
            line=problem.line,
            column=problem.column,
            message=_cut(problem.message, _PROBLEM_TEXT_BYTES),
            hint=_cut(problem.hint, _PROBLEM_TEXT_BYTES),
        )
        if packed.ByteSize() + message.ByteSize() > _PROBLEMS_BYTES:
            packed.problems.add(source=message.source, message=f"and {len(problems) - index} more problems")
            break
        packed.problems.append(message)
    return packed.SerializeToString()


def _unpack_problems(packed: bytes) -> tuple[Problem, ...]:
    """Empty when it is not what we send."""
    try:
        message = run_pb2.SuiteProblems.FromString(packed)
    except DecodeError:
        return ()
    return tuple(
        Problem(source=each.source, line=each.line, column=each.column, message=each.message, hint=each.hint)
        for each in message.problems
    )


def _cut(text: str, most_bytes: int) -> str:
    content = text.encode("utf-8", "backslashreplace")
    return content.decode() if len(content) <= most_bytes else content[:most_bytes].decode("utf-8", "ignore") + " [...]"
