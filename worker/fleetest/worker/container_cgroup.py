"""What a container uses, from its control groups' files (Linux, version 1 and 2)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Final, Protocol

from fleetest.common.results import ResourceSample, ResourceUsage

__all__ = [
    "CgroupReading",
    "ContainerCgroup",
    "ContainerCgroupV1",
    "ContainerCgroupV2",
    "ContainerMeter",
    "find_cgroup",
]

_MOUNT: Final = Path("sys/fs/cgroup")
_CHARGED_AT_ONCE_BYTES: Final = 64 * 4096
_MOST_BYTES: Final = 1 << 16
"""The kernel writes such files whole into what is large enough; a few lines each, or one for each device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupReading:
    """
    Totals since the group was made, but for `memory_bytes`, which is the present, and what is said otherwise.

    Args:
        memory_bytes: without files that could be dropped from the page cache at once.
        peak_memory_bytes: the kernel's own highest mark, since it was last reset where that can be; 0 when unknown.
        limit_hits: how often memory ran out, or had to be reclaimed, because of the group's own limit.
        out_of_memory_kills: of processes of the group, by any cause.
        pids: processes and threads now.
    """

    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0
    limit_hits: int = 0
    out_of_memory_kills: int = 0
    pids: int = 0


class ContainerCgroup(Protocol):
    """The control groups of one container. A group that is gone reads as nothing used."""

    def read(self) -> CgroupReading: ...

    def reset_peak(self) -> bool:
        """Let the highest mark of memory count from now on; false where the kernel has no way to."""

    def close(self) -> None:
        """Let go of what it holds open. Idempotent."""


def find_cgroup(container_id: str, pid: int, root: Path = Path("/")) -> ContainerCgroup | None:
    """
    The groups of a container, or nothing where they cannot be seen: on another machine, or from inside a container that
    was not given the machine's groups (`--volume /sys/fs/cgroup:/sys/fs/cgroup:ro`).

    Args:
        pid: of its main process.

    Source: cgroups(7) for `/proc/PID/cgroup`; the kernel's admin-guide/cgroup-v1/memory, cpuacct and blkio-controller,
    and admin-guide/cgroup-v2 for the files.
    """
    groups = _groups_of(container_id, pid, root)
    mount = root / _MOUNT
    if "memory" in groups and (mount / "memory" / groups["memory"]).is_dir():
        return ContainerCgroupV1({name: mount / name / path for name, path in groups.items() if name})
    if "" in groups and (mount / groups[""] / "memory.current").is_file():
        return ContainerCgroupV2(mount / groups[""])
    return _find_by_name(container_id, mount)


def _groups_of(container_id: str, pid: int, root: Path) -> dict[str, str]:
    """Paths by controller; the one of version 2 has no name. None when the process is not one of the container's."""
    try:
        lines = (root / "proc" / str(pid) / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    groups: dict[str, str] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        groups.update((controller, path.lstrip("/")) for controller in controllers.split(","))
    # The process of that number must be the container's, not one of this machine.
    return {controller: path for controller, path in groups.items() if container_id in path}


def _find_by_name(container_id: str, mount: Path) -> ContainerCgroup | None:
    """Where the Engine puts them by default: in a container one sees no processes of others, but perhaps all groups."""
    for path in (f"docker/{container_id}", f"system.slice/docker-{container_id}.scope"):
        if (mount / "memory" / path).is_dir():
            return ContainerCgroupV1({name: mount / name / path for name in ("memory", "cpuacct", "blkio", "pids")})
        if (mount / path / "memory.current").is_file():
            return ContainerCgroupV2(mount / path)
    return None


class ContainerCgroupV1:
    """
    Fulfils `ContainerCgroup`.

    Args:
        folders: by controller.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        nowhere = Path(os.devnull)
        self._memory, self._cpu, self._disk, self._pids = (
            str(folders.get(name, nowhere)) for name in ("memory", "cpuacct", "blkio", "pids")
        )

    def read(self) -> CgroupReading:
        memory = _fields(f"{self._memory}/memory.stat")
        read, written = _io_service(f"{self._disk}/blkio.throttle.io_service_bytes_recursive")
        peak_bytes = _number(f"{self._memory}/memory.max_usage_in_bytes")
        return CgroupReading(
            cpu_seconds=_number(f"{self._cpu}/cpuacct.usage") / 1e9,
            memory_bytes=max(
                0, _number(f"{self._memory}/memory.usage_in_bytes") - memory.get("total_inactive_file", 0)
            ),
            peak_memory_bytes=peak_bytes,
            disk_read_bytes=read,
            disk_written_bytes=written,
            limit_hits=self._limit_hits(peak_bytes),
            out_of_memory_kills=_fields(f"{self._memory}/memory.oom_control").get("oom_kill", 0),
            pids=_number(f"{self._pids}/pids.current"),
        )

    def _limit_hits(self, peak_bytes: int) -> int:
        """Not every kernel counts them; but where memory has once come up to the limit, it has hit it."""
        limit_bytes = _number(f"{self._memory}/memory.limit_in_bytes")
        counted = _number(f"{self._memory}/memory.failcnt") + _number(f"{self._memory}/memory.memsw.failcnt")
        return counted + (1 if 0 < limit_bytes <= peak_bytes + _CHARGED_AT_ONCE_BYTES else 0)

    def reset_peak(self) -> bool:
        try:
            Path(f"{self._memory}/memory.max_usage_in_bytes").write_text("0", encoding="ascii")
        except OSError:
            return False
        return True

    def close(self) -> None:
        """It holds nothing open."""


class ContainerCgroupV2:
    """Fulfils `ContainerCgroup`."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._peak_file = folder / "memory.peak"
        self._peak: IO[str] | None = None

    def read(self) -> CgroupReading:
        memory = _fields(f"{self._folder}/memory.stat")
        events = _fields(f"{self._folder}/memory.events")
        read, written = _io_stat(f"{self._folder}/io.stat")
        return CgroupReading(
            cpu_seconds=_fields(f"{self._folder}/cpu.stat").get("usage_usec", 0) / 1e6,
            memory_bytes=max(0, _number(f"{self._folder}/memory.current") - memory.get("inactive_file", 0)),
            peak_memory_bytes=self._read_peak(),
            disk_read_bytes=read,
            disk_written_bytes=written,
            limit_hits=events.get("oom", 0),
            out_of_memory_kills=events.get("oom_kill", 0),
            pids=_number(f"{self._folder}/pids.current"),
        )

    def reset_peak(self) -> bool:
        """A reset, which Linux has from 6.12 on, holds for the descriptor that it was written to."""
        try:
            if self._peak is None:
                self._peak = self._peak_file.open("r+", encoding="ascii", buffering=1)
            self._peak.seek(0)
            self._peak.write("reset\n")
            self._peak.flush()
        except OSError:
            self.close()
            return False
        return True

    def close(self) -> None:
        if self._peak is not None:
            with contextlib.suppress(OSError):
                self._peak.close()
        self._peak = None

    def _read_peak(self) -> int:
        if self._peak is None:
            return _number(f"{self._folder}/memory.peak")
        try:
            self._peak.seek(0)
            return int(self._peak.read())
        except (OSError, ValueError):
            self.close()
            return 0


class ContainerMeter:
    """
    What one process of a container uses, with all that it started: the difference to when the meter was made.

    Its highest memory is the kernel's mark where that can be reset; else the highest that was seen by looking.
    """

    def __init__(self, cgroup: ContainerCgroup | None) -> None:
        self._cgroup = cgroup
        self._has_own_peak = cgroup is not None and cgroup.reset_peak()
        self._first = self._last = cgroup.read() if cgroup is not None else CgroupReading()
        self._peak_bytes = 0
        self._sampled, self._sampled_at = self._first, datetime.now(UTC)

    def sample(self) -> ResourceSample:
        """What was used since the sample before; the mean for cpu, the present for memory."""
        before, then = self._sampled, self._sampled_at
        self._sampled, self._sampled_at = self._look(), datetime.now(UTC)
        seconds = (self._sampled_at - then).total_seconds()
        return ResourceSample(
            at=self._sampled_at,
            cpu_cores=max(0.0, self._sampled.cpu_seconds - before.cpu_seconds) / seconds if seconds > 0 else 0.0,
            memory_bytes=self._sampled.memory_bytes,
            disk_read_bytes=max(0, self._sampled.disk_read_bytes - before.disk_read_bytes),
            disk_written_bytes=max(0, self._sampled.disk_written_bytes - before.disk_written_bytes),
        )

    def usage(self) -> ResourceUsage:
        """Totals so far."""
        now, first = self._look(), self._first
        return ResourceUsage(
            cpu_time=timedelta(seconds=max(0.0, now.cpu_seconds - first.cpu_seconds)),
            peak_memory_bytes=self._peak_bytes,
            disk_read_bytes=max(0, now.disk_read_bytes - first.disk_read_bytes),
            disk_written_bytes=max(0, now.disk_written_bytes - first.disk_written_bytes),
        )

    def was_killed_for_memory(self) -> bool:
        """Whether the kernel killed one of its processes because memory ran out."""
        return self._look().out_of_memory_kills > self._first.out_of_memory_kills

    def hit_its_limit(self) -> bool:
        """Whether it was the container's own limit that memory ran into."""
        return self._look().limit_hits > self._first.limit_hits

    def _look(self) -> CgroupReading:
        """The groups' present state, or their last one when they are gone."""
        if self._cgroup is not None:
            now = self._cgroup.read()
            if now.cpu_seconds >= self._last.cpu_seconds and now.cpu_seconds > 0:
                self._last = now
        seen = self._last.peak_memory_bytes if self._has_own_peak else self._last.memory_bytes
        self._peak_bytes = max(self._peak_bytes, seen)
        return self._last


def _number(file: str) -> int:
    try:
        return int(_content(file))
    except (OSError, ValueError):
        return 0


def _fields(file: str) -> dict[str, int]:
    """Lines of a name and a number."""
    found = {}
    for line in _lines(file):
        name, _, value = line.partition(" ")
        if value.strip().isdigit():
            found[name] = int(value)
    return found


def _io_service(file: str) -> tuple[int, int]:
    """Bytes read and written: `8:0 Read 4096`, for each device."""
    totals = {"Read": 0, "Write": 0}
    for line in _lines(file):
        words = line.split()
        if len(words) == 3 and words[1] in totals:  # noqa: PLR2004 - as above
            totals[words[1]] += int(words[2])
    return totals["Read"], totals["Write"]


def _io_stat(file: str) -> tuple[int, int]:
    """Bytes read and written: `8:0 rbytes=4096 wbytes=0 rios=1 ...`, for each device."""
    totals = {"rbytes": 0, "wbytes": 0}
    for line in _lines(file):
        for word in line.split()[1:]:
            name, _, value = word.partition("=")
            if name in totals:
                totals[name] += int(value)
    return totals["rbytes"], totals["wbytes"]


def _lines(file: str) -> list[str]:
    try:
        return _content(file).decode("ascii").splitlines()
    except OSError:
        return []


def _content(file: str) -> bytes:
    """All of a small file. Ten are read whenever an attempt ends: what `open` prepares for would cost more."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        return os.read(descriptor, _MOST_BYTES)
    finally:
        os.close(descriptor)
