"""What a worker remembers of a directory into which it put a workspace's files. Kept outside of that directory."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

from fleetest.common.digest import digest_of, is_digest
from fleetest.common.regular_files import FileIdentity
from fleetest.common.workspace import WorkspaceFile

__all__ = ["PlacedFile", "WorkspaceState"]

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class PlacedFile:
    """What was put into a file, and the file's identity then. While that is the same, so is the content."""

    digest: str
    executable: bool
    identity: FileIdentity

    def holds(self, file: WorkspaceFile, status: os.stat_result) -> bool:
        """Whether what is there now is what the workspace wants there. Asked for every file before every session."""
        identity = self.identity
        return (
            self.digest == file.digest
            and self.executable == file.executable
            and identity.mtime_ns == status.st_mtime_ns
            and identity.ctime_ns == status.st_ctime_ns
            and identity.inode == status.st_ino
            and identity.size_bytes == status.st_size
        )


class WorkspaceState:
    """
    The state file of one target directory.

    It may be lost, damaged or older than the directory: what it says of a file counts only while the file's identity
    agrees, so the worst that follows is a copy made once more.

    Args:
        directory: of all state files.
        target: the directory that the state is of.
    """

    def __init__(self, directory: Path, target: Path) -> None:
        self._file = directory / f"{digest_of(os.fsencode(target.absolute()))}.json"

    def identity(self) -> FileIdentity | None:
        """Changes with every `save`; nothing when there is no state."""
        try:
            return FileIdentity.of(self._file.stat())
        except OSError:
            return None

    def load(self) -> dict[str, PlacedFile]:
        """The files by path; none when there is no state that can be read."""
        try:
            document = json.loads(self._file.read_bytes())
            if document["version"] != _VERSION:
                return {}
            return {path: _placed_file(*fields) for path, fields in document["files"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return {}

    def save(self, files: Mapping[str, PlacedFile]) -> None:
        """Replace the state. Raises OSError."""
        content = {path: [file.digest, file.executable, *astuple(file.identity)] for path, file in files.items()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(json.dumps({"version": _VERSION, "files": content}), encoding="utf-8")
            temporary.replace(self._file)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remember nothing. Raises OSError."""
        self._file.unlink(missing_ok=True)


def _placed_file(digest: Any, executable: Any, *identity: Any) -> PlacedFile:
    if not is_digest(digest):
        raise ValueError(digest)
    return PlacedFile(digest, executable, FileIdentity(*identity))
