"""Files that checks refer to: relative to the file that names them, and inside of the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["MAX_FILE_BYTES", "Files"]

MAX_FILE_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """
    Args:
        directory: what paths are relative to.
        root: what no path may lead out of.
    """

    directory: Path
    root: Path

    def find(self, path: str) -> Path:
        """
        The file that a path names.

        Raises:
            ValueError: there is none that may be read.
        """
        try:
            found = (self.directory / path).resolve()
            is_file = found.is_file()
        except (OSError, ValueError) as error:
            raise ValueError(f"'{path[:100]}' cannot be read: {error}") from error
        if not found.is_relative_to(self.root.resolve()):
            raise ValueError(f"'{path[:100]}' leads out of the workspace")
        if not is_file:
            raise ValueError(f"there is no file '{path[:100]}' beside this one")
        return found

    def content(self, path: str) -> bytes:
        """
        What a file holds.

        Raises:
            ValueError: it cannot be read, or is too large.
        """
        found = self.find(path)
        try:
            if found.stat().st_size > MAX_FILE_BYTES:
                raise ValueError(f"'{path[:100]}' is larger than {MAX_FILE_BYTES >> 20} MiB")
            return found.read_bytes()
        except OSError as error:
            raise ValueError(f"'{path[:100]}' cannot be read: {error.strerror}") from error

    def text(self, path: str) -> str:
        """
        What a text file holds.

        Raises:
            ValueError: it cannot be read, or is not UTF-8.
        """
        try:
            return self.content(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"'{path[:100]}' is not UTF-8: byte {error.start + 1} cannot be read") from error
