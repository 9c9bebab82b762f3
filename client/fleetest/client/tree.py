"""Finding the files of a workspace."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetest.common.ignore import IgnoreRules
from fleetest.common.limits import MAX_FILE_BYTES, MAX_WORKSPACE_FILES
from fleetest.common.workspace import Problem, link_problem, path_problem

__all__ = ["FoundFile", "Tree", "walk"]

_NEVER: Final = frozenset({".git", "__pycache__"})

_KINDS: Final = {
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file, and what the system said of it when it was found."""

    path: str
    status: os.stat_result


@dataclass(slots=True)
class Tree:
    """What a walk found: regular files, symbolic links with their targets, and what cannot come along."""

    files: list[FoundFile] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def walk(root: Path, rules: IgnoreRules) -> Tree:
    """
    Every file below `root` that no rule ignores, in no particular order.

    Left out always: `.git`, `__pycache__`, and virtual environments (a directory that holds `pyvenv.cfg`).
    """
    tree = Tree()
    pending = [("", rules)]
    while pending:
        directory, inside = pending.pop()
        try:
            with os.scandir(root / directory) as entries:
                for entry in entries:
                    if entry.name not in _NEVER:
                        pending += _visit(tree, root, directory, entry, inside)
        except OSError as error:
            tree.problems.append(Problem(directory.removesuffix("/") or ".", f"cannot be read: {error.strerror}"))
        if len(tree.files) + len(tree.links) > MAX_WORKSPACE_FILES:
            tree.problems.append(_too_many(tree))
            break
    tree.problems += [Problem(path, reason) for path in tree.links if (reason := link_problem(path, tree.links))]
    return tree


def _visit(
    tree: Tree, root: Path, directory: str, entry: os.DirEntry[str], rules: IgnoreRules
) -> list[tuple[str, IgnoreRules]]:
    """Put one entry where it belongs; answers the directory to go on with, if it is one."""
    path = directory + entry.name
    is_directory = entry.is_dir(follow_symlinks=False)
    if rules.ignores(entry.name, is_directory=is_directory) and not (is_directory and rules.opens(entry.name)):
        return []
    try:
        if is_directory:
            below = root / path
            return [] if (below / "pyvenv.cfg").is_file() else [(f"{path}/", rules.enter(entry.name, below))]
        reason = path_problem(path) or _take(tree, path, entry)
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
    if reason:
        tree.problems.append(Problem(path, reason))
    return []


def _take(tree: Tree, path: str, entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        tree.links[path] = str(Path(entry).readlink())
        return ""
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'not a regular file')}"
    if status.st_size > MAX_FILE_BYTES:
        return f"has {status.st_size} bytes; the limit for one file is {MAX_FILE_BYTES}"
    tree.files.append(FoundFile(path, status))
    return ""


def _too_many(tree: Tree) -> Problem:
    tops = Counter(file.path.partition("/")[0] for file in tree.files)
    largest = ", ".join(f"{name} ({count})" for name, count in tops.most_common(3))
    return Problem(".", f"holds more than {MAX_WORKSPACE_FILES} files; most are in {largest}")
