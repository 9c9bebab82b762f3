"""
What files hashed to the last time, so that an unchanged tree need not be read again.

An entry is believed while the file's identity is the recorded one. As in Git's index ("racy-git.txt" of its
documentation), a file that changed at about the time of the scan, or later, is not recorded: it could change once
more within the same tick of the file system's clock.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final

from fleetest.common.digest import digest_of, is_digest
from fleetest.common.regular_files import FileIdentity

__all__ = ["DigestCache"]

_VERSION: Final = 1
_TICK_NS: Final = 2_000_000_000  # FAT's, the coarsest of the file systems in use; also allows for a server's clock


class DigestCache:
    """
    The digests of the files below one root.

    A cache that is absent, damaged or cannot be written is an empty one.

    Args:
        directory: where caches are kept, one file for each root.
    """

    def __init__(self, directory: Path, root: Path) -> None:
        self._file = directory / f"{digest_of(os.fsencode(root.resolve()))}.json"
        self._entries = _load(self._file)

    def get(self, path: str, identity: FileIdentity) -> str | None:
        """The digest of a file that is still the one it was."""
        known, digest = self._entries.get(path, (None, ""))
        return digest if known == identity else None

    def replace(self, entries: Mapping[str, tuple[FileIdentity, str]], *, scan_started_ns: int) -> None:
        """Keep these, and only these, for the next scan; but none that is younger than the scan."""
        before = self._entries
        self._entries = {
            path: (identity, digest)
            for path, (identity, digest) in entries.items()
            if identity.changed_ns < scan_started_ns - _TICK_NS
        }
        if self._entries != before or not before:
            with suppress(OSError):
                self._save()

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = {path: [*astuple(identity), digest] for path, (identity, digest) in self._entries.items()}
        descriptor, temporary = tempfile.mkstemp(dir=self._file.parent, suffix=".tmp")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump({"version": _VERSION, "files": content}, file)
            Path(temporary).replace(self._file)
        except OSError:
            Path(temporary).unlink()
            raise


def _load(file: Path) -> dict[str, tuple[FileIdentity, str]]:
    try:
        document = json.loads(file.read_bytes())
        if document["version"] != _VERSION:
            return {}
        return {path: _entry(*fields) for path, fields in document["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _entry(size_bytes: Any, mtime_ns: Any, inode: Any, ctime_ns: Any, digest: Any) -> tuple[FileIdentity, str]:
    if not is_digest(digest):
        raise ValueError(digest)
    return FileIdentity(size_bytes, mtime_ns, inode, ctime_ns), digest
