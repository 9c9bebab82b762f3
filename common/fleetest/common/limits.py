"""Bounds on what one task may put into the system. All sizes in bytes."""

from __future__ import annotations

from typing import Final

__all__ = [
    "MAX_ARTIFACTS_BYTES",
    "MAX_ARTIFACT_BYTES",
    "MAX_ASSERTIONS",
    "MAX_CASES_PER_TASK",
    "MAX_FILE_BYTES",
    "MAX_INPUTS_BYTES",
    "MAX_MESSAGE_BYTES",
    "MAX_NEEDS",
    "MAX_OUTPUT_BYTES",
    "MAX_RESULT_TEXT_BYTES",
    "MAX_SUITE_BYTES",
    "MAX_TASKS",
    "MAX_WORKSPACE_FILES",
]

MAX_FILE_BYTES: Final = 1 << 30
"""A single file of a workspace: 1 GiB."""

MAX_WORKSPACE_FILES: Final = 200_000

MAX_ARTIFACT_BYTES: Final = 1 << 30
"""A single file that a task leaves behind: 1 GiB."""

MAX_ARTIFACTS_BYTES: Final = 8 << 30
"""All files that one attempt leaves behind: 8 GiB."""

MAX_INPUTS_BYTES: Final = 8 << 30
"""All artifacts that one task takes of others: 8 GiB."""

MAX_OUTPUT_BYTES: Final = 16 << 20
"""What is kept of an attempt's output; the rest is dropped, and said to be."""

MAX_RESULT_TEXT_BYTES: Final = 64 << 10
"""Each text of a case result: message, details, captured output. The middle of a longer one is cut out."""

MAX_ASSERTIONS: Final = 200
"""Of a case; more are not kept. All their texts together are within `MAX_RESULT_TEXT_BYTES`."""

MAX_CASES_PER_TASK: Final = 500_000

MAX_SUITE_BYTES: Final = 1 << 20

MAX_TASKS: Final = 10_000
"""Of a suite, its matrices expanded."""

MAX_NEEDS: Final = 100_000
"""Dependencies of a suite, its matrices expanded."""

MAX_MESSAGE_BYTES: Final = 16 << 20
"""A gRPC message, either way."""
