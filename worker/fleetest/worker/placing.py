"""Putting files from the blob cache into a directory that has been tidied."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from fleetest.common.regular_files import FileIdentity
from fleetest.common.workspace import WorkspaceFile
from fleetest.worker.blob_cache import BlobCache
from fleetest.worker.copying import copy_content
from fleetest.worker.directories import open_directory, open_or_replace_directory
from fleetest.worker.ownership import Owner
from fleetest.worker.workspace_state import PlacedFile

__all__ = ["open_target", "place"]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def open_target(target: Path) -> int:
    """A descriptor of the directory, made in place of whatever else is there. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    parent = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_or_replace_directory(parent, target.name)
    finally:
        os.close(parent)


def place(
    target: Path, files: Sequence[WorkspaceFile], cache: BlobCache, owner: Owner | None = None
) -> tuple[dict[str, PlacedFile], list[WorkspaceFile]]:
    """
    Create files that are not there, in directories that are, for `owner` or else the agent itself.

    Returns:
        What has been put there, by path, and the files whose blobs the cache does not hold, or not whole.

    Raises:
        OSError
    """
    placed: dict[str, PlacedFile] = {}
    lacking: list[WorkspaceFile] = []
    with _OpenFolder(target) as folder:
        for file in files:
            path, _, name = file.path.rpartition("/")
            directory = folder.move_to(path)
            if file.symlink_target:
                os.symlink(file.symlink_target, name, dir_fd=directory)
                if owner is not None:
                    owner.own_link(name, directory=directory)
            elif identity := _copy(directory, name, file, cache, owner):
                placed[file.path] = PlacedFile(file.digest, file.executable, identity)
            else:
                lacking.append(file)
    return placed, lacking


def _copy(directory: int, name: str, file: WorkspaceFile, cache: BlobCache, owner: Owner | None) -> FileIdentity | None:
    blob = cache.open(file.digest)
    if blob is None:
        return None
    try:
        created = os.open(name, _CREATE, 0o600, dir_fd=directory)
        try:
            copied_bytes = copy_content(blob, created)
            os.fchmod(created, 0o755 if file.executable else 0o644)
            if owner is not None:
                owner.own(created)
            identity = FileIdentity.of(os.fstat(created))
        finally:
            os.close(created)
    finally:
        os.close(blob)
    if copied_bytes == file.size_bytes:
        return identity
    # A machine that lost power may have kept the blob's name and not its content.
    cache.discard(file.digest)
    os.unlink(name, dir_fd=directory)
    return None


class _OpenFolder:
    """A descriptor that moves through the directories below a target; cheap while it stays in one."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = ""
        self._descriptor = open_target(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def move_to(self, path: str) -> int:
        """Go to the directory at the '/'-separated path, which is followed through no symbolic link."""
        if path == self._path:
            return self._descriptor
        self._step_to(open_target(self._target))
        for name in path.split("/") if path else ():
            self._step_to(open_directory(self._descriptor, name))
        self._path = path
        return self._descriptor

    def _step_to(self, descriptor: int) -> None:
        os.close(self._descriptor)
        self._descriptor = descriptor
