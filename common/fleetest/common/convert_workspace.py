"""
Between a workspace and its manifest.

The manifest is a serialised `WorkspaceManifest` whose files are ordered by path. The message has no maps and no
unknown fields, so that its serialisation, and with it the workspace's digest, depends on nothing but the files.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from google.protobuf.message import DecodeError

from fleetest.common.digest import digest_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.workspace import Workspace, WorkspaceFile, check_files
from fleetest.v1.types_pb2 import WorkspaceManifest

__all__ = ["MAX_MANIFEST_BYTES", "manifest_entry", "parse_manifest", "workspace_of"]

MAX_MANIFEST_BYTES: Final = 128 << 20
"""Room for `MAX_WORKSPACE_FILES` with paths of 500 bytes."""


def workspace_of(files: Iterable[WorkspaceFile]) -> Workspace:
    """
    The workspace of these files, in whatever order they come.

    Raises:
        InvalidRequest: names every problem.
    """
    ordered = tuple(sorted(files, key=attrgetter("path")))
    check_files(ordered)
    manifest = b"".join(map(manifest_entry, ordered))
    _check_size(manifest)
    return Workspace(files=ordered, digest=digest_of(manifest), manifest=manifest)


def manifest_entry(file: WorkspaceFile) -> bytes:
    """The file's part of a manifest, which is nothing but such parts, ordered by path."""
    message = WorkspaceManifest()
    message.files.add(
        path=file.path,
        digest=file.digest,
        size_bytes=file.size_bytes,
        executable=file.executable,
        symlink_target=file.symlink_target,
    )
    return message.SerializeToString(deterministic=True)


def parse_manifest(manifest: bytes) -> Workspace:
    """
    The workspace that a manifest describes, whoever wrote it.

    Raises:
        InvalidRequest: it is no manifest, or names every problem of its files.
    """
    _check_size(manifest)
    try:
        message = WorkspaceManifest.FromString(manifest)
    except DecodeError as error:
        raise InvalidRequest("not a workspace manifest", hint="Its digest names some other blob.") from error
    files = tuple(
        WorkspaceFile(
            path=file.path,
            digest=file.digest,
            size_bytes=file.size_bytes,
            executable=file.executable,
            symlink_target=file.symlink_target,
        )
        for file in message.files
    )
    check_files(files)
    return Workspace(files=files, digest=digest_of(manifest), manifest=manifest)


def _check_size(manifest: bytes) -> None:
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise InvalidRequest(
            f"the workspace's manifest has {len(manifest)} bytes; the limit is {MAX_MANIFEST_BYTES}",
            hint="Leave directories that the tests do not need out of the workspace with .fleetestignore.",
        )
