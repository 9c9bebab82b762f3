"""Whose files are, where that is another user than the agent's: tests in containers are not root."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["Owner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """A user and a group. Only root can give files away; for anybody else they are the agent's own already."""

    uid: int
    gid: int

    @property
    def text(self) -> str:
        """`uid:gid`, as container engines take it."""
        return f"{self.uid}:{self.gid}"

    def own(self, descriptor: int) -> None:
        """Own what is open. Raises OSError."""
        status = os.fstat(descriptor)
        if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (self.uid, self.gid):
            os.fchown(descriptor, self.uid, self.gid)

    def own_link(self, name: str, *, directory: int) -> None:
        """Own a symbolic link inside an open directory. Raises OSError."""
        if os.geteuid() == 0:
            os.chown(name, self.uid, self.gid, dir_fd=directory, follow_symlinks=False)
