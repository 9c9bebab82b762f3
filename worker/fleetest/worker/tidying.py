"""
Making room for a workspace in a directory: what belongs stays, what does not goes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from fleetest.common.workspace import WorkspaceFile
from fleetest.worker.directories import open_directory, open_or_replace_directory, remove
from fleetest.worker.ownership import Owner
from fleetest.worker.workspace_state import PlacedFile

__all__ = ["Folder", "tidy"]

_BYTECODE: Final = "__pycache__"

# PEP 3147 and PEP 488: spam.cpython-311.pyc, spam.cpython-311.opt-1.pyc; pytest's: spam.cpython-311-pytest-9.0.2.pyc
_BYTECODE_NAME: Final = re.compile(r"(?P<stem>.+?)\.[a-z]+-?\d+(-pytest-[\w.+-]+?)?(\.opt-\w+)?\.pyc")


@dataclass(slots=True)
class Folder:
    """A directory of a workspace: its files and its directories by name."""

    files: dict[str, WorkspaceFile] = field(default_factory=dict)
    folders: dict[str, Folder] = field(default_factory=dict)

    @classmethod
    def of(cls, files: Sequence[WorkspaceFile]) -> Self:
        """The tree of these files."""
        top = cls()
        for file in files:
            *directories, name = file.path.split("/")
            here: Folder = top
            for directory in directories:
                here = here.folders.setdefault(directory, Folder())
            here.files[name] = file
        return top


def tidy(
    directory: int, folder: Folder, placed: Mapping[str, PlacedFile], owner: Owner | None = None
) -> list[WorkspaceFile]:
    """
    Remove from the open directory what does not belong to the folder or has been changed, and make its directories.

    Bytecode caches of sources that stay are kept: they save every session the compilation.

    Args:
        directory: a descriptor.
        folder: what belongs there.
        placed: what has been put there, by path.
        owner: whose the directories are to be.

    Returns:
        The files that must be put there.

    Raises:
        OSError
    """
    if owner is not None:
        owner.own(directory)
    absent = dict(folder.files)
    bytecode = False
    with os.scandir(directory) as scanned:
        entries = list(scanned)
    for entry in entries:
        is_directory = entry.is_dir(follow_symlinks=False)
        if is_directory and entry.name in folder.folders:
            continue
        if is_directory and entry.name == _BYTECODE:
            bytecode = True
        elif (file := folder.files.get(entry.name)) and _is_right(directory, entry, file, placed):
            del absent[entry.name]
        else:
            remove(directory, entry.name)
    if bytecode:
        _tidy_bytecode(directory, sources=folder.files.keys() - absent.keys())
    wanted = list(absent.values())
    for name, below in folder.folders.items():
        inside = open_or_replace_directory(directory, name)
        try:
            wanted += tidy(inside, below, placed, owner)
        finally:
            os.close(inside)
    return wanted


def _is_right(directory: int, entry: os.DirEntry[str], file: WorkspaceFile, placed: Mapping[str, PlacedFile]) -> bool:
    if file.symlink_target:
        return entry.is_symlink() and os.readlink(entry.name, dir_fd=directory) == file.symlink_target
    known = placed.get(file.path)
    status = entry.stat(follow_symlinks=False)
    return known is not None and stat.S_ISREG(status.st_mode) and known.holds(file, status)


def _tidy_bytecode(directory: int, *, sources: set[str]) -> None:
    """
    Keep the bytecode of these sources, which have not changed, and nothing else.

    Python compares no more than the size of the source and its time in seconds (PEP 552), which another version of it
    may share.
    """
    cache = open_directory(directory, _BYTECODE)
    try:
        with os.scandir(cache) as scanned:
            stale = [
                entry.name
                for entry in scanned
                if not (entry.is_file(follow_symlinks=False) and _source_of(entry.name) in sources)
            ]
        for name in stale:
            remove(cache, name)
    finally:
        os.close(cache)


def _source_of(bytecode: str) -> str:
    """The name of the source that the bytecode was made from; empty when the name is none that Python gives."""
    found = _BYTECODE_NAME.fullmatch(bytecode)
    return f"{found['stem']}.py" if found else ""
