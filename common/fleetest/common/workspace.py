"""
A workspace: the files that a task runs on, named by what is in them.

A `Workspace` is made from what a scan found, or from a manifest that somebody sent, in `convert_workspace`; both ways
lead through `check_files`, so that one which exists can be laid out anywhere without leaving its directory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from fleetest.common.digest import is_digest
from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_FILE_BYTES, MAX_WORKSPACE_FILES

__all__ = [
    "Problem",
    "Workspace",
    "WorkspaceFile",
    "check_files",
    "link_problem",
    "path_problem",
    "refuse",
]

_MAX_PATH_BYTES: Final = 2048  # Linux allows 4096 for the whole path, of which a worker's own directory is a part
_MAX_NAME_BYTES: Final = 255  # NAME_MAX of every common file system
_MAX_DEPTH: Final = 100
_MAX_TARGET_BYTES: Final = 1024
_MAX_HOPS: Final = 40  # Linux gives up after as many symbolic links (path_resolution(7))
_SHOWN_PROBLEMS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceFile:
    """
    One entry of a workspace.

    Args:
        path: relative, '/'-separated, without '.' or '..'.
        digest: of a regular file's content; empty for a symbolic link.
        symlink_target: of a symbolic link, relative, inside the tree; empty for a regular file.
    """

    path: str
    digest: str = ""
    size_bytes: int = 0
    executable: bool = False
    symlink_target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """
    The files, ordered by path.

    Args:
        digest: of the manifest; names the workspace.
        manifest: the files, serialised; the blob that `digest` names.
    """

    files: tuple[WorkspaceFile, ...]
    digest: str
    manifest: bytes = field(repr=False)

    @property
    def total_bytes(self) -> int:
        """The sizes of all files, those of equal content counted each."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one path cannot be in a workspace."""

    path: str
    reason: str


def refuse(problems: Sequence[Problem], *, hint: str) -> InvalidRequest:
    """One error that names every problem, or the first fifty of very many."""
    lines = [f"  {problem.path!r}: {problem.reason}" for problem in problems[:_SHOWN_PROBLEMS]]
    if len(problems) > _SHOWN_PROBLEMS:
        lines.append(f"  and {len(problems) - _SHOWN_PROBLEMS} more")
    return InvalidRequest("\n".join(["the workspace cannot be used:", *lines]), hint=hint)


def check_files(files: Sequence[WorkspaceFile]) -> None:
    """
    Make sure that the files can be laid out below any directory, and that their order is by path.

    Raises:
        InvalidRequest: names every problem.
    """
    if len(files) > MAX_WORKSPACE_FILES:
        raise InvalidRequest(f"the workspace has {len(files)} files; the limit is {MAX_WORKSPACE_FILES}")
    problems = [Problem(file.path, reason) for file in files if (reason := _file_problem(file))]
    problems += _order_problems(files)
    links = {file.path: file.symlink_target for file in files if file.symlink_target}
    problems += [Problem(path, reason) for path in links if (reason := link_problem(path, links))]
    if problems:
        raise refuse(problems, hint="The manifest was not made by Fleetest, or was damaged.")


def _file_problem(file: WorkspaceFile) -> str:
    if reason := path_problem(file.path):
        return reason
    if file.symlink_target:
        return "" if not file.digest and not file.size_bytes else "is both a symbolic link and a file"
    if not is_digest(file.digest):
        return f"has no proper digest: {file.digest[:80]!r}"
    if not 0 <= file.size_bytes <= MAX_FILE_BYTES:
        return f"has a size of {file.size_bytes} bytes; the limit is {MAX_FILE_BYTES}"
    return ""


def _order_problems(files: Sequence[WorkspaceFile]) -> Iterable[Problem]:
    paths = {file.path for file in files}
    for before, file in pairwise(files):
        if file.path == before.path:
            yield Problem(file.path, "is there twice")
        elif file.path < before.path:
            yield Problem(file.path, f"is out of order after {before.path!r}")
    for path in sorted(paths):
        parent = path.rpartition("/")[0]
        while parent:
            if parent in paths:
                yield Problem(path, f"lies below {parent!r}, which is no directory")
            parent = parent.rpartition("/")[0]


def path_problem(path: str) -> str:
    """What is wrong with a path inside a workspace; empty when nothing is."""
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    parts = encoded.split(b"/")
    if len(encoded) > _MAX_PATH_BYTES or len(parts) > _MAX_DEPTH or any(len(part) > _MAX_NAME_BYTES for part in parts):
        return f"is too long or too deep ({len(encoded)} bytes, {len(parts)} levels)"
    if b"\0" in encoded or any(part in {b"", b".", b".."} for part in parts):
        return "is not a plain relative path"
    return ""


def link_problem(path: str, links: Mapping[str, str]) -> str:
    """
    What is wrong with the symbolic link at `path`; empty when nothing is.

    Args:
        path: a key of `links`.
        links: the target of every symbolic link of the workspace, since a link may lead out by way of another one.
    """
    target = links[path]
    if not target.isprintable() or len(target.encode(errors="replace")) > _MAX_TARGET_BYTES:
        return f"its target is not a printable path of at most {_MAX_TARGET_BYTES} bytes"
    if _leaves_tree(path, links):
        return f"is a symbolic link that leaves the tree, to {target!r}"
    return ""


def _leaves_tree(path: str, links: Mapping[str, str]) -> bool:
    """Follow the link as the kernel does (path_resolution(7)), with the workspace's links for the disk's."""
    here = path.split("/")[:-1]
    rest = deque(_parts(links[path]))
    hops = 1
    while rest and hops <= _MAX_HOPS:
        part = rest.popleft()
        if part == "/" or (part == ".." and not here):
            return True
        if part == "..":
            here.pop()
        elif (target := links.get("/".join([*here, part]))) is not None:
            hops += 1
            rest.extendleft(reversed(_parts(target)))
        else:
            here.append(part)
    return False


def _parts(target: str) -> list[str]:
    parts = [part for part in target.split("/") if part not in {"", "."}]
    return ["/", *parts] if target.startswith("/") else parts
