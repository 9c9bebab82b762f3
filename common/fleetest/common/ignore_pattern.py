"""
One line of a `.gitignore` file.

Why not pathspec: it answers for a path together with every directory above it, so that a pattern which matches a
parent cannot be told from one that matches the path itself. A rule of a nested file, or of `.fleetestignore`, that
brings a directory back would then bring back everything in it, whatever the rules of the level above say of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["IgnorePattern", "parse_pattern"]

_CLASSES: Final = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "digit": "0-9",
    "lower": "a-z",
    "punct": r"!-\.:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "0-9a-fA-F",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnorePattern:
    """
    What a line says, relative to the directory of its file. Source: gitignore(5), "PATTERN FORMAT".

    Args:
        expression: matches the whole of a path, or of a name when the pattern is not anchored.
        parts: the glob, split at '/'.
        negated: what matches is not ignored.
        anchored: holds for the path; else for the name, in any directory below.
        directory_only: matches directories alone.
    """

    expression: re.Pattern[str]
    parts: tuple[str, ...]
    negated: bool
    anchored: bool
    directory_only: bool

    def matches(self, path: str, name: str, *, is_directory: bool) -> bool:
        """Whether the pattern means this very entry, not only a directory above it."""
        if self.directory_only and not is_directory:
            return False
        return self.expression.fullmatch(path if self.anchored else name) is not None

    def directories_above(self) -> list[re.Pattern[str]]:
        """
        What matches the directories in which an anchored pattern may match something.

        A pattern that begins with `**`, and one that is not anchored, could match anywhere: no directory is named.
        """
        if not self.anchored or self.parts[0] == "**":
            return []
        globs = []
        for count in range(1, len(self.parts)):
            globs.append("/".join(self.parts[:count]))
            if self.parts[count] == "**":
                globs.append(f"{globs[-1]}/**")
                break
        return [expression for glob in globs if (expression := _compile(glob))]


def parse_pattern(line: str) -> IgnorePattern | None:
    """The pattern of a line; nothing for an empty one, a comment, or what Git would not match anything with."""
    line = _without_trailing_spaces(line.removesuffix("\r"))
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    glob = line[negated:]
    directory_only = glob.endswith("/")
    glob = glob.removesuffix("/")
    anchored = "/" in glob
    glob = glob.removeprefix("/")
    expression = _compile(glob)
    if not glob or expression is None:
        return None
    return IgnorePattern(
        expression=expression,
        parts=tuple(glob.split("/")),
        negated=negated,
        anchored=anchored,
        directory_only=directory_only,
    )


def _without_trailing_spaces(line: str) -> str:
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    escaped = backslashes % 2 == 1 and len(stripped) < len(line)
    return f"{stripped} " if escaped else stripped


def _compile(glob: str) -> re.Pattern[str] | None:
    """Git's wildmatch with WM_PATHNAME as a regular expression; nothing when the glob is malformed."""
    try:
        return re.compile("".join(_translate(glob)), re.DOTALL)
    except (re.error, IndexError):
        return None


def _translate(glob: str) -> list[str]:
    translated: list[str] = []
    position = 0
    while position < len(glob):
        at_start = position == 0 or glob[position - 1] == "/"
        character = glob[position]
        if at_start and glob.startswith("**/", position):
            translated.append("(?:.*/)?")
            position += 3
        elif at_start and glob[position:] == "**":
            translated.append(".+")
            position += 2
        elif character == "[":
            expression, position = _translate_bracket(glob, position)
            translated.append(expression)
        elif character == "\\":
            translated.append(re.escape(glob[position + 1]))
            position += 2
        else:
            translated.append({"*": "[^/]*", "?": "[^/]"}.get(character) or re.escape(character))
            position += 1
    return translated


def _translate_bracket(glob: str, start: int) -> tuple[str, int]:
    """A bracket expression, and where it ends. Raises IndexError when it never does."""
    position = start + 1
    negated = glob[position] in "!^"
    first = position = position + negated
    members = ""
    while glob[position] != "]" or position == first:
        if glob.startswith("[:", position) and (end := glob.find(":]", position)) > 0:
            members += _CLASSES.get(glob[position + 2 : end], "")
            position = end + 2
            continue
        if glob[position] == "\\":
            position += 1
        literal = glob[position] != "-" or position == first or glob[position + 1] == "]" or glob[position - 1] == "\\"
        members += re.escape(glob[position]) if literal else "-"
        position += 1
    return f"(?!/)[{'^' * negated}{members}]", position + 1
