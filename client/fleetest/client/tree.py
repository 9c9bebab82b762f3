"""Finding the files of a workspace."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from fleetest.client.tree_memory import Identity, Listing, TreeMemory, identity_of, packed
from fleetest.common.ignore import RULE_FILES, IgnoreRules
from fleetest.common.limits import MAX_FILE_BYTES, MAX_WORKSPACE_FILES
from fleetest.common.workspace import Problem, link_problem, path_problem

__all__ = ["Tree", "walk"]

_NEVER: Final = frozenset({".git", "__pycache__"})
_VENV_MARK: Final = "pyvenv.cfg"

_KINDS: Final = {
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
}


@dataclass(slots=True)
class Tree:
    """
    What a walk found.

    Args:
        listings: by directory; one in which nothing has changed is the remembered one.
        identities: in the other directories, each file's; not the right one until what is unread has been read.
        unread: regular files that are not as they are remembered: directory and name.
        count: how many files and links there are.
        problems: what cannot come along.
        rule_files: as `TreeMemory` has them.
    """

    listings: dict[str, Listing] = field(default_factory=dict)
    identities: dict[str, dict[str, Identity]] = field(default_factory=dict)
    unread: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0
    problems: list[Problem] = field(default_factory=list)
    rule_files: dict[str, Identity] = field(default_factory=dict)


def walk(root: Path, rules: Callable[[], IgnoreRules], memory: TreeMemory, *, same_rules: bool) -> Tree:
    """
    Every file below `root` that no rule ignores, in no particular order.

    Left out always: `.git`, `__pycache__`, and virtual environments (a directory that holds `pyvenv.cfg`).

    Args:
        rules: those at the root; asked for when a directory is not as it is remembered.
        same_rules: whether they are those by which the memory's listings were made.
    """
    walker = _Walker(root, rules, memory, same_rules=same_rules)
    tree, pending = walker.tree, [""]
    while pending:
        directory = pending.pop()
        listing = walker.visit(directory)
        if listing is not None:
            tree.listings[directory] = listing
            tree.count += len(listing.files) + len(listing.links)
            pending += [f"{directory}{name}/" for name in listing.directories]
        if tree.count > MAX_WORKSPACE_FILES:
            tree.problems.append(_too_many(tree))
            break
    links = {
        directory + name: target for directory, each in tree.listings.items() for name, target in each.links.items()
    }
    tree.problems += [Problem(path, reason) for path in links if (reason := link_problem(path, links))]
    return tree


class _Walker:
    """Directories are named by their paths below the root, with a '/' at the end; the root by an empty text."""

    def __init__(self, root: Path, rules: Callable[[], IgnoreRules], memory: TreeMemory, *, same_rules: bool) -> None:
        self.tree = Tree(rule_files=dict(memory.rule_files) if same_rules else {})
        self._root = root
        self._rules_at_root = rules
        self._rules: dict[str, IgnoreRules] = {}
        self._remembered = memory.listings
        self._trusted: Mapping[str, Listing] = memory.listings if same_rules else {}

    def visit(self, directory: str) -> Listing | None:
        """What is in the directory; nothing when it cannot be read."""
        try:
            with _opened(f"{self._root}/{directory}") as descriptor:
                known = self._trusted.get(directory)
                recalled = self._recalled(directory, descriptor, known) if known else None
                return recalled or self._look(directory, descriptor, known)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            self.tree.problems.append(Problem(directory.removesuffix("/") or ".", reason))
            return None

    def _recalled(self, directory: str, descriptor: int, known: Listing) -> Listing | None:
        """The directory as it was, but for the content of files; nothing when that is not what it is."""
        if os.listdir(descriptor) != known.names:
            return None
        top = f"{self._root}/{directory}"
        before, changed = {}, {}
        try:
            if packed([identity_of(_status(name, descriptor)) for name in known.files]) != known.identities:
                before = known.by_file
                statuses = ((name, _status(name, descriptor)) for name in known.files)
                changed = {name: status for name, status in statuses if identity_of(status) != before[name]}
            if not (
                all(stat.S_ISREG(each.st_mode) and each.st_size <= MAX_FILE_BYTES for each in changed.values())
                and all(_is_directory(top + name) == kind for name, kind in known.ignored.items())
                and all(_is_directory(top + name) for name in known.directories)
                and not any(os.path.isfile(f"{top}{name}/{_VENV_MARK}") for name in known.directories)  # noqa: PTH113
                and all(os.readlink(top + name) == target for name, target in known.links.items())  # noqa: PTH115
            ):
                return None
        except OSError:
            return None
        if not changed:
            return known
        self.tree.identities[directory] = before
        self.tree.unread += [(directory, name) for name in changed]
        return known

    def _look(self, directory: str, descriptor: int, known: Listing | None) -> Listing:
        with os.scandir(descriptor) as scanned:
            entries = list(scanned)
        listing = Listing(
            names=[entry.name for entry in entries], files=[], identities=b"", directories=[], links={}, ignored={}
        )
        remembered = self._remembered.get(directory)
        before = remembered.by_file if remembered is not None else {}
        self.tree.identities[directory] = {}
        rules = self._rules_in(directory)
        for entry in entries:
            if entry.name not in _NEVER:
                self._sort_in(directory, entry, listing, rules, before)
        rule_files = RULE_FILES.intersection(listing.names)
        for name in rule_files:
            path = f"{self._root}/{directory}{name}"
            self.tree.rule_files[path] = identity_of(os.lstat(path))
        if known is not None and rule_files != RULE_FILES.intersection(known.names):
            # What is below has been judged by other rules.
            self._trusted = {path: each for path, each in self._trusted.items() if not path.startswith(directory)}
        return listing

    def _rules_in(self, directory: str) -> IgnoreRules:
        if directory not in self._rules:
            if directory:
                above, _, name = directory.removesuffix("/").rpartition("/")
                outer = self._rules_in(f"{above}/" if above else "")
                self._rules[directory] = outer.enter(name, self._root / directory)
            else:
                self._rules[directory] = self._rules_at_root()
        return self._rules[directory]

    def _sort_in(
        self,
        directory: str,
        entry: os.DirEntry[str],
        listing: Listing,
        rules: IgnoreRules,
        before: Mapping[str, Identity],
    ) -> None:
        path, name = directory + entry.name, entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        if rules.ignores(name, is_directory=is_directory) and not (is_directory and rules.opens(name)):
            listing.ignored[name] = is_directory
            return
        try:
            if is_directory:
                if (self._root / path / _VENV_MARK).is_file():
                    listing.ignored[f"{name}/{_VENV_MARK}"] = False
                else:
                    listing.directories.append(name)
                return
            reason = path_problem(path) or self._take(directory, entry, listing, before)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
        if reason:
            self.tree.problems.append(Problem(path, reason))

    def _take(self, directory: str, entry: os.DirEntry[str], listing: Listing, before: Mapping[str, Identity]) -> str:
        if entry.is_symlink():
            listing.links[entry.name] = str((self._root / directory / entry.name).readlink())
            return ""
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            return f"is {_KINDS.get(stat.S_IFMT(status.st_mode), 'not a regular file')}"
        if status.st_size > MAX_FILE_BYTES:
            return f"has {status.st_size} bytes; the limit for one file is {MAX_FILE_BYTES}"
        listing.files.append(entry.name)
        self.tree.identities[directory][entry.name] = known = before.get(entry.name, ())
        if known != identity_of(status):
            self.tree.unread.append((directory, entry.name))
        return ""


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    """Its descriptor: what is in an open directory is found without the path to it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _status(name: str, descriptor: int) -> os.stat_result:
    return os.stat(name, dir_fd=descriptor, follow_symlinks=False)


def _is_directory(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _too_many(tree: Tree) -> Problem:
    tops = Counter(
        (directory + name).partition("/")[0] for directory, each in tree.listings.items() for name in each.files
    )
    largest = ", ".join(f"{name} ({count})" for name, count in tops.most_common(3))
    return Problem(".", f"holds more than {MAX_WORKSPACE_FILES} files; most are in {largest}")
