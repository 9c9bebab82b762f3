"""From a directory to a workspace."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetest.client.tree import Tree, walk
from fleetest.client.tree_memory import Identity, Listing, TreeMemory, identity_of, packed, trusted
from fleetest.common.convert_workspace import manifest_entry, parse_manifest
from fleetest.common.digest import digest_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.git import tracked_although_ignored
from fleetest.common.ignore import IGNORE_FILE, IgnoreRules, index_file, rules_around
from fleetest.common.regular_files import FileIdentity, hash_file, open_regular
from fleetest.common.workspace import Problem, Workspace, WorkspaceFile, refuse

__all__ = ["Scan", "scan_tree", "scan_workspace"]

_TRIES: Final = 3
_THREADS: Final = min(8, os.cpu_count() or 1)  # hashing lets go of the interpreter's lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """
    What a scan found.

    Args:
        digest: names the workspace.
        count: of its files and links.
        as_remembered: the last scan found the same.
    """

    digest: str
    count: int
    as_remembered: bool
    _memory: TreeMemory = field(repr=False)

    def workspace(self) -> Workspace:
        """The workspace in full, which takes longer than to find that nothing has changed."""
        return parse_manifest(_manifest(self._memory))


def scan_workspace(root: Path, *, cache_directory: Path, clock_ns: Callable[[], int] = time.time_ns) -> Workspace:
    """The workspace at `root`; see `scan_tree`."""
    return scan_tree(root, cache_directory=cache_directory, clock_ns=clock_ns).workspace()


def scan_tree(root: Path, *, cache_directory: Path, clock_ns: Callable[[], int] = time.time_ns) -> Scan:
    """
    Find every file at `root` that no ignore rule leaves out, with its digest. Blocks; reads only what changed.

    Equal trees give equal workspaces. Files that Git tracks belong to it, whatever an ignore file says of them.

    Args:
        root: its own `.gitignore` applies, and those of the Git repository around it.
        cache_directory: where the last scan is remembered; may be lost at any time.
        clock_ns: nanoseconds since the epoch.

    Raises:
        InvalidRequest: names everything that cannot come along, and how to leave it out.
    """
    if not root.is_dir():
        raise InvalidRequest(f"no such directory: {root}", hint="Name the directory that holds the tests.")
    started_ns = clock_ns()
    before = TreeMemory.load(cache_directory, root)
    now = TreeMemory(rules=rules_around(root), index=trusted(_index(root), scan_started_ns=started_ns))
    now.tracked = before.tracked if _same_tracked(before, now) else tracked_although_ignored(root)
    same_rules = now.tracked == before.tracked and before.rules_hold(now.rules)
    tree = walk(root, lambda: IgnoreRules.for_root(root, tracked=now.tracked), before, same_rules=same_rules)
    entries, unreadable = _read_all(root, tree)
    problems = tree.problems + unreadable
    if problems:
        raise refuse(
            sorted(problems, key=lambda problem: problem.path),
            hint=f"Add what the tests do not need to {root / IGNORE_FILE}, which has the syntax of .gitignore.",
        )
    now.listings = tree.listings | _told_anew(tree, scan_started_ns=started_ns)
    now.rule_files = trusted(tree.rule_files, scan_started_ns=started_ns)
    if _are(now.listings, before.listings) and before.digest:
        now.digest, now.packed_entries = before.digest, before.packed_entries
    else:
        now.pack(before.entries | entries)
        now.digest = digest_of(_manifest(now))
    if now != before:
        now.save(cache_directory, root)
    return Scan(digest=now.digest, count=tree.count, as_remembered=now.digest == before.digest, _memory=now)


def _told_anew(tree: Tree, *, scan_started_ns: int) -> dict[str, Listing]:
    """The directories that are not as they are remembered, with what has been read."""
    anew = {}
    for directory, identities in tree.identities.items():
        believed = trusted(identities, scan_started_ns=scan_started_ns)
        listing = tree.listings[directory]
        anew[directory] = listing._replace(files=list(believed), identities=packed(believed.values()))
    return anew


def _are(listings: Mapping[str, Listing], others: Mapping[str, Listing]) -> bool:
    """Whether they are the very same."""
    return len(listings) == len(others) and all(others.get(path) is each for path, each in listings.items())


def _manifest(memory: TreeMemory) -> bytes:
    entries = memory.entries
    for directory, listing in memory.listings.items():
        for name, target in listing.links.items():
            path = directory + name
            entries[path] = manifest_entry(WorkspaceFile(path=path, symlink_target=target))
    return b"".join(entries[path] for path in sorted(entries))


def _read_all(root: Path, tree: Tree) -> tuple[dict[str, bytes], list[Problem]]:
    """Read what has not been read: entries of the manifest by path, and what cannot be read."""
    entries, problems = {}, []
    with ThreadPoolExecutor(_THREADS) as pool:
        outcomes = pool.map(lambda place: _read(root, "".join(place)), tree.unread)
        for (directory, name), outcome in zip(tree.unread, outcomes, strict=True):
            if isinstance(outcome, Problem):
                problems.append(outcome)
            elif outcome is None:
                del tree.identities[directory][name]
                tree.count -= 1
            else:
                tree.identities[directory][name], entries[directory + name] = outcome
    return entries, problems


def _index(root: Path) -> dict[str, Identity]:
    """Git's index, with its identity; nothing without a repository."""
    index = index_file(root)
    if index is None:
        return {}
    try:
        return {str(index): identity_of(index.lstat())}
    except OSError:
        return {str(index): ()}


def _same_tracked(before: TreeMemory, now: TreeMemory) -> bool:
    """Whether Git would name the same tracked files that are ignored; without a repository, it names none."""
    known = before.rules == now.rules and before.index == now.index
    return known and all(now.index.values())


def _read(root: Path, path: str) -> tuple[Identity, bytes] | Problem | None:
    """The file, read; or what is wrong with it; nothing when it has gone since the walk."""
    try:
        for _ in range(_TRIES):
            descriptor = open_regular(root / path)
            try:
                before = os.fstat(descriptor)
                digest, size_bytes = hash_file(descriptor)
                after = os.fstat(descriptor)
            finally:
                os.close(descriptor)
            if FileIdentity.of(before) == FileIdentity.of(after) and size_bytes == after.st_size:
                executable = bool(after.st_mode & stat.S_IXUSR)
                file = WorkspaceFile(path=path, digest=digest, size_bytes=size_bytes, executable=executable)
                return identity_of(after), manifest_entry(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        return Problem(path, f"cannot be read: {error.strerror}")
    return Problem(path, "changes while it is read")
