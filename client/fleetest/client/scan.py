"""From a directory to a workspace."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetest.client.digest_cache import DigestCache
from fleetest.client.tree import FoundFile, walk
from fleetest.common.convert_workspace import workspace_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.git import tracked_although_ignored
from fleetest.common.ignore import IGNORE_FILE, IgnoreRules
from fleetest.common.regular_files import FileIdentity, hash_file, open_regular
from fleetest.common.workspace import Problem, Workspace, WorkspaceFile, refuse

__all__ = ["scan_workspace"]

_TRIES: Final = 3
_THREADS: Final = min(8, os.cpu_count() or 1)  # hashing lets go of the interpreter's lock


@dataclass(frozen=True, slots=True)
class _Hashed:
    file: WorkspaceFile
    identity: FileIdentity


def scan_workspace(root: Path, *, cache_directory: Path, clock_ns: Callable[[], int] = time.time_ns) -> Workspace:
    """
    The workspace at `root`: every file that no ignore rule leaves out, by digest. Blocks; reads only what changed.

    Equal trees give equal workspaces. Files that Git tracks belong to it, whatever an ignore file says of them.

    Args:
        root: its own `.gitignore` applies, and those of the Git repository around it.
        cache_directory: where the digests of the last scan are kept; may be lost at any time.
        clock_ns: nanoseconds since the epoch.

    Raises:
        InvalidRequest: names everything that cannot come along, and how to leave it out.
    """
    if not root.is_dir():
        raise InvalidRequest(f"no such directory: {root}", hint="Name the directory that holds the tests.")
    started_ns = clock_ns()
    cache = DigestCache(cache_directory, root)
    tree = walk(root, IgnoreRules.for_root(root, tracked=tracked_although_ignored(root)))
    known = [_known(found, cache) for found in tree.files]
    changed = [found for found, hashed in zip(tree.files, known, strict=True) if hashed is None]
    with ThreadPoolExecutor(_THREADS) as pool:  # asking a thread costs more than finding that a file is still the same
        outcomes = [*known, *pool.map(lambda found: _hash(root, found), changed)]
    problems = tree.problems + [each for each in outcomes if isinstance(each, Problem)]
    if problems:
        raise refuse(
            sorted(problems, key=lambda problem: problem.path),
            hint=f"Add what the tests do not need to {root / IGNORE_FILE}, which has the syntax of .gitignore.",
        )
    hashed = [each for each in outcomes if isinstance(each, _Hashed)]
    cache.replace({each.file.path: (each.identity, each.file.digest) for each in hashed}, scan_started_ns=started_ns)
    links = [WorkspaceFile(path=path, symlink_target=target) for path, target in tree.links.items()]
    return workspace_of([each.file for each in hashed] + links)


def _known(found: FoundFile, cache: DigestCache) -> _Hashed | None:
    """The file with the digest that it had the last time, if it is still the same."""
    digest = cache.get(found.path, FileIdentity.of(found.status))
    return _hashed(found.path, digest, found.status) if digest else None


def _hash(root: Path, found: FoundFile) -> _Hashed | Problem | None:
    """The file with its digest, or what is wrong with it; nothing when it has gone since the walk."""
    try:
        for _ in range(_TRIES):
            descriptor = open_regular(root / found.path)
            try:
                before = os.fstat(descriptor)
                digest, size_bytes = hash_file(descriptor)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if FileIdentity.of(before) == FileIdentity.of(after) and size_bytes == after.st_size:
                return _hashed(found.path, digest, after)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(found.path, f"cannot be read: {error.strerror}")
    return Problem(found.path, "changes while it is read")


def _hashed(path: str, digest: str, status: os.stat_result) -> _Hashed:
    file = WorkspaceFile(
        path=path,
        digest=digest,
        size_bytes=status.st_size,
        executable=bool(status.st_mode & stat.S_IXUSR),
    )
    return _Hashed(file, FileIdentity.of(status))
