"""What the command's exit code says."""

from __future__ import annotations

from typing import Final

from fleetest.common.errors import (
    AlreadyExists,
    FleetestError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Unauthenticated,
    WrongState,
)
from fleetest.common.states import RunState

__all__ = ["FAILED", "INFRASTRUCTURE", "PASSED", "USAGE", "exit_code_of_error", "exit_code_of_run"]

PASSED: Final = 0
FAILED: Final = 1
"""Tests failed, or the run was cancelled or left before its end."""
USAGE: Final = 2
"""What was asked for cannot be: the command line, the suite, a name, a token."""
INFRASTRUCTURE: Final = 3
"""It is not known whether the tests pass: the run errored, or the cluster cannot be reached."""

_BY_STATE: Final = {
    RunState.PASSED: PASSED,
    RunState.FAILED: FAILED,
    RunState.CANCELLED: FAILED,
    RunState.ERRORED: INFRASTRUCTURE,
    RunState.RUNNING: FAILED,
}
_USERS_OWN: Final = (AlreadyExists, Forbidden, InvalidRequest, NotFound, Unauthenticated, WrongState)


def exit_code_of_run(state: RunState) -> int:
    """For a command that waited for a run."""
    return _BY_STATE[state]


def exit_code_of_error(error: FleetestError) -> int:
    """Whether the caller can mend it, or somebody has to look after the cluster."""
    return USAGE if isinstance(error, _USERS_OWN) else INFRASTRUCTURE
