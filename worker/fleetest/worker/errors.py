"""The errors that only a worker raises."""

from __future__ import annotations

from fleetest.common.errors import InvalidRequest

__all__ = ["SetupFailed"]


class SetupFailed(InvalidRequest):
    """
    A line of a task's `setup` failed: the task's own doing, so trying again elsewhere does not help.

    Args:
        line: the shell line.
        exit_code: minus the signal's number when a signal ended it.
        output: the tail of what it wrote.
    """

    def __init__(self, line: str, exit_code: int, output: str) -> None:
        super().__init__(f"setup failed with exit code {exit_code}: {line}\n{output}".rstrip())
        self.line = line
        self.exit_code = exit_code
        self.output = output
