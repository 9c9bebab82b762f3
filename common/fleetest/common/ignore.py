"""
Which files stay out of a workspace.

`.gitignore`, nested and with negation, and `.git/info/exclude` are read as Git reads them, in a repository or not.
`.fleetestignore` has the same syntax and the last word: it can leave out more, and bring back with `!` what Git
ignores. Where that lies in an ignored directory, the pattern must name the way (`!build/generated/`, not
`!generated/`), so that a scan need not search through every `node_modules`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from fleetest.common.digest import digest_of
from fleetest.common.ignore_pattern import IgnorePattern, parse_pattern

__all__ = ["IGNORE_FILE", "RULE_FILES", "IgnoreRules", "index_file", "rules_around"]

IGNORE_FILE: Final = ".fleetestignore"

RULE_FILES: Final = frozenset({".gitignore", IGNORE_FILE})
"""The names of files with rules for their directory, and for those below."""


@dataclass(frozen=True, slots=True)
class _Level:
    """The patterns of one file, and the directory that they are relative to: empty, or ending with '/'."""

    base: str
    patterns: tuple[IgnorePattern, ...]

    def verdict(self, path: str, name: str, *, is_directory: bool) -> bool | None:
        below = path.removeprefix(self.base)
        for pattern in reversed(self.patterns):
            if pattern.matches(below, name, is_directory=is_directory):
                return not pattern.negated
        return None

    def names_something_below(self, directory: str) -> bool:
        below = directory.removeprefix(self.base)
        return any(
            expression.fullmatch(below)
            for pattern in self.patterns
            if pattern.negated
            for expression in pattern.directories_above()
        )


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """
    The rules that hold in one directory.

    Args:
        directory: empty for the top, else ending with '/'. The top is the Git repository's, or the scanned root.
        git: the levels of Git's files, outermost first; and `fleetest` of ours.
        ignored: the directory itself is ignored: nothing in it comes in unless a pattern of ours says so.
        tracked: paths that Git tracks although its rules ignore them; those come in.
    """

    directory: str = ""
    git: tuple[_Level, ...] = ()
    fleetest: tuple[_Level, ...] = ()
    ignored: bool = False
    tracked: frozenset[str] = frozenset()

    @classmethod
    def for_root(cls, root: Path, *, tracked: Iterable[str] = ()) -> IgnoreRules:
        """
        The rules at the top of a tree, with those of the Git repository around it, unless that ignores the tree.

        Args:
            root: the directory that is scanned.
            tracked: paths relative to `root`.
        """
        root = root.resolve()
        top = _repository_around(root) or root
        prefix = "" if top == root else f"{root.relative_to(top).as_posix()}/"
        rules = cls(tracked=frozenset(prefix + path for path in tracked))
        rules = _with_files_of(top, replace(rules, git=_levels("", _exclude_file(top))))
        here = top
        for name in Path(prefix).parts:
            if rules.ignores(name, is_directory=True) and not rules.opens(name):
                return _with_files_of(root, cls(tracked=frozenset(tracked)))
            here /= name
            rules = rules.enter(name, here)
        return rules

    def ignores(self, name: str, *, is_directory: bool) -> bool:
        """Whether an entry of this directory stays out."""
        path = self.directory + name
        for level in reversed(self.fleetest):
            if (verdict := level.verdict(path, name, is_directory=is_directory)) is not None:
                return verdict
        if path in self.tracked:
            return False
        if self.ignored:
            return True
        for level in reversed(self.git):
            if (verdict := level.verdict(path, name, is_directory=is_directory)) is not None:
                return verdict
        return False

    def opens(self, name: str) -> bool:
        """Whether something in this ignored directory may come in all the same."""
        path = self.directory + name
        return any(level.names_something_below(path) for level in self.fleetest) or any(
            each.startswith(f"{path}/") for each in self.tracked
        )

    def enter(self, name: str, directory: Path) -> IgnoreRules:
        """The rules inside a directory of this one, which lies at `directory`."""
        ignored = self.ignores(name, is_directory=True)
        return _with_files_of(directory, replace(self, directory=f"{self.directory}{name}/", ignored=ignored))


def _with_files_of(directory: Path, rules: IgnoreRules) -> IgnoreRules:
    return replace(
        rules,
        git=rules.git + _levels(rules.directory, directory / ".gitignore"),
        fleetest=rules.fleetest + _levels(rules.directory, directory / IGNORE_FILE),
    )


def _levels(base: str, file: Path) -> tuple[_Level, ...]:
    """The level that a file makes; none when it is absent. What cannot be read is the scan's to report."""
    patterns = tuple(pattern for line in _text(file).split("\n") if (pattern := parse_pattern(line)))
    return (_Level(base, patterns),) if patterns else ()


def _repository_around(root: Path) -> Path | None:
    return next((each for each in (root, *root.parents) if os.path.lexists(each / ".git")), None)


def rules_around(root: Path) -> str:
    """Names the rules that `IgnoreRules.for_root` reads, and where it reads them, tracked paths aside."""
    root = root.resolve()
    top = _repository_around(root) or root
    directories = [each for each in (root, *root.parents) if each.is_relative_to(top)]
    files = [_exclude_file(top), *(each / name for each in directories for name in sorted(RULE_FILES))]
    return digest_of("\0".join(part for file in files for part in (str(file), _text(file))).encode(errors="replace"))


def index_file(root: Path) -> Path | None:
    """The index of the Git repository around `root`, if there is one."""
    top = _repository_around(root.resolve())
    return _git_directory(top) / "index" if top is not None else None


def _exclude_file(top: Path) -> Path:
    """`info/exclude` of the repository; that of a linked worktree is the main one's (gitrepository-layout(5))."""
    git = _git_directory(top)
    if (top / ".git").is_file():
        git /= _text(git / "commondir").strip()
    return git / "info" / "exclude"


def _git_directory(top: Path) -> Path:
    git = top / ".git"
    return top / _text(git).removeprefix("gitdir:").strip() if git.is_file() else git


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except OSError:
        return ""
