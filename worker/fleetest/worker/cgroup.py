"""The limits that a container puts on a process: Linux control groups, version 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["Cgroup", "read_cgroup"]

_NO_LIMIT_BYTES: Final = 1 << 60
"""Version 1 says "no limit" with the largest page-aligned number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cgroup:
    """`None` is no limit."""

    cpu_millis: int | None = None
    memory_bytes: int | None = None


def read_cgroup(root: Path = Path("/")) -> Cgroup:
    """
    The limits of this process, its ancestors' included; none where there are no control groups.

    Source: the kernel's documentation, admin-guide/cgroup-v2 (`cpu.max`, `memory.max`), and for version 1
    `cpu.cfs_quota_us`, `cpu.cfs_period_us` and `memory.limit_in_bytes`.
    """
    memory = [_number(folder / "memory.max") for folder in _folders(root, "")]
    memory += [_number(folder / "memory.limit_in_bytes") for folder in _folders(root, "memory")]
    cpu = [_cpu_max(folder / "cpu.max") for folder in _folders(root, "")]
    cpu += [_cfs_quota(folder) for folder in _folders(root, "cpu")]
    return Cgroup(
        cpu_millis=min((limit for limit in cpu if limit), default=None),
        memory_bytes=min((limit for limit in memory if limit and limit < _NO_LIMIT_BYTES), default=None),
    )


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """
    The process's group and its ancestors; `controller` is empty for version 2.

    Inside a container the path is often the host's, of which only the last folder is visible: as the mount itself.
    """
    group = _group(root, controller)
    mount = root / "sys/fs/cgroup" / controller
    if group is not None:
        relative = PurePosixPath(group.lstrip("/"))
        yield from (mount / folder for folder in (relative, *relative.parents))


def _group(root: Path, controller: str) -> str | None:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return None


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # "max" is no limit
        return None


def _cpu_max(file: Path) -> int | None:
    try:
        quota, period = file.read_text(encoding="utf-8").split()
        return int(quota) * 1000 // int(period)
    except (OSError, ValueError):
        return None


def _cfs_quota(folder: Path) -> int | None:
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota * 1000 // period if quota and period and quota > 0 else None
