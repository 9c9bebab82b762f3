"""Between what is known of where a workspace came from, and its message; before a run is handed in, it is needed."""

from __future__ import annotations

from fleetest.common.convert_text import text_to_proto
from fleetest.common.version_control import VersionControl
from fleetest.v1 import types_pb2

__all__ = ["version_control_from_proto", "version_control_to_proto"]


def version_control_to_proto(value: VersionControl) -> types_pb2.VersionControl:
    """The message."""
    return types_pb2.VersionControl(
        commit=value.commit,
        branch=text_to_proto(value.branch),
        pull_request=value.pull_request,
        dirty=value.dirty,
        described_version=value.described_version,
    )


def version_control_from_proto(message: types_pb2.VersionControl) -> VersionControl:
    """What a message says."""
    return VersionControl(
        commit=message.commit,
        branch=message.branch,
        pull_request=message.pull_request,
        dirty=message.dirty,
        described_version=message.described_version,
    )
