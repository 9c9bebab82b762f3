"""What became of a suite that was handed in: apart from all else that a client answers, which nobody needs by then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fleetest.v1 import run_pb2

__all__ = ["Submission", "submission_from_proto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """
    What became of a suite that was handed in.

    Args:
        already_submitted: the idempotency key was known: this is the run of the first time.
        superseded_run_ids: older runs that were cancelled in its favour.
    """

    run_id: str
    already_submitted: bool = False
    superseded_run_ids: tuple[str, ...] = ()


def submission_from_proto(message: run_pb2.SubmitRunResponse) -> Submission:
    """As the client answers it."""
    return Submission(
        run_id=message.run_id,
        already_submitted=message.already_submitted,
        superseded_run_ids=tuple(message.superseded_run_ids),
    )
