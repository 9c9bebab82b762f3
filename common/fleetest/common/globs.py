"""The globs of artifacts, as `pathlib` reads them, for files of which only the paths are known."""

from __future__ import annotations

from fnmatch import fnmatchcase

__all__ = ["glob_means"]


def glob_means(glob: str, path: str) -> bool:
    """
    Whether the glob matches the file, or a directory above it.

    `*` and `?` stay within a name, and `**` stands for any number of directories; see `Path.glob`. Linear in both
    arguments, whoever wrote them.
    """
    parts = path.split("/")
    reached = {0}  # after how many parts of the path the glob may stand
    for wanted in (each for each in glob.split("/") if each not in {"", "."}):
        if wanted == "**":
            reached = set(range(min(reached), len(parts) + 1))
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatchcase(parts[at], wanted)}
        if not reached:
            return False
    return True
