"""
The one tree of errors.

::

    FleetestError
     +-- InvalidRequest          the caller's input is wrong; says what, where, and what to do
     |    +-- SuiteInvalid       (fleetest.common.suite) every problem of a suite at once
     |    +-- SourceChanged      (fleetest.common.client_blobs) a file changed while it was sent
     +-- NotFound                no such run, task, worker, blob
     +-- AlreadyExists           the name is taken
     +-- WrongState              right request, wrong moment
     +-- LeaseLost               the attempt or the session belongs to somebody else by now
     +-- CapacityExceeded        a limit or a disk is full
     +-- DependencyUnavailable   the store, Redis, or the master does not answer
     +-- DeadlinePassed          it took longer than it may
     +-- Unauthenticated         no token, or a wrong one
     +-- Forbidden               the token does not allow it

A failing test is a result, never one of these. Each class maps to one gRPC status in
`fleetest.common.grpc_status`; anything else becomes INTERNAL.
"""

from __future__ import annotations

__all__ = [
    "AlreadyExists",
    "CapacityExceeded",
    "DeadlinePassed",
    "DependencyUnavailable",
    "FleetestError",
    "Forbidden",
    "InvalidRequest",
    "LeaseLost",
    "NotFound",
    "Unauthenticated",
    "WrongState",
]


class FleetestError(Exception):
    """
    Anything that Fleetest itself raises on purpose.

    Args:
        message: what is wrong and where, for people.
        hint: what to do about it; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class InvalidRequest(FleetestError):
    """The caller's input is wrong."""


class NotFound(FleetestError):
    """What was asked for does not exist."""


class AlreadyExists(FleetestError):
    """The name is taken."""


class WrongState(FleetestError):
    """The request is right, the moment is not."""


class LeaseLost(FleetestError):
    """The attempt or the session belongs to somebody else by now."""


class CapacityExceeded(FleetestError):
    """A limit is reached, or a disk is full."""


class DependencyUnavailable(FleetestError):
    """Something that Fleetest needs does not answer; trying again later may help."""


class DeadlinePassed(FleetestError):
    """It took longer than it may."""


class Unauthenticated(FleetestError):
    """No token was given, or a wrong one."""


class Forbidden(FleetestError):
    """The token is right, but does not allow this."""
