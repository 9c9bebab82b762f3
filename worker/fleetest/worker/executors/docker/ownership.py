"""Giving files to the user that a container's processes run as."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The user of a container's processes."""

    uid: int
    gid: int

    @property
    def text(self) -> str:
        """`uid:gid`, as the Engine takes it."""
        return f"{self.uid}:{self.gid}"

    def take(self, root: Path) -> None:
        """Own a directory with all that is in it. Only root can give away; for another user it is so already."""
        if os.geteuid() != 0:
            return
        for directory, _, files, descriptor in os.fwalk(root):
            self._take(directory, None)
            for name in files:
                self._take(name, descriptor)
            # Links to directories are listed with these.
            with os.scandir(descriptor) as entries:
                links = [entry.name for entry in entries if entry.is_symlink()]
            for name in links:
                self._take(name, descriptor)

    def _take(self, name: str, directory: int | None) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if (status.st_uid, status.st_gid) != (self.uid, self.gid):
            os.chown(name, self.uid, self.gid, dir_fd=directory, follow_symlinks=False)
