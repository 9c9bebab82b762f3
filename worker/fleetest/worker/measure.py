"""What a tree of processes uses, as `psutil` sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from fleetest.common.results import ResourceSample, ResourceUsage

__all__ = ["TreeMeter", "subtract_usage"]

_CHILDREN = Path("/proc/thread-self/children")  # not in every kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    at: datetime
    cpu_seconds: float = 0.0
    memory_bytes: int = 0
    disk_read_bytes: int = 0
    disk_written_bytes: int = 0


class TreeMeter:
    """
    Measures all descendants of one process.

    What ended and was waited for counts with the process that waited (`getrusage(2)`, `task_io_accounting`), so the
    totals lose nothing as long as the root lives.

    The peak of memory is the highest sum that was seen when somebody looked, or the highest that a single process
    reached, which the kernel remembers (`VmHWM` in `proc_pid_status(5)`, `ru_maxrss` in `getrusage(2)`), if that is
    more: what several processes reached together between two looks is missed.

    Args:
        root: the process whose descendants are measured; its own use is not counted.
    """

    def __init__(self, root: int) -> None:
        with contextlib.suppress(psutil.Error):
            self._root = psutil.Process(root)
        self._last = _Reading(at=datetime.now(UTC))
        self._peak_memory_bytes = 0
        self._sampled = self._last

    def sample(self) -> ResourceSample:
        """What was used since the sample before; the mean for cpu, the present for memory."""
        before, now = self._sampled, self._read()
        self._sampled = now
        seconds = (now.at - before.at).total_seconds()
        cpu_cores = max(0.0, now.cpu_seconds - before.cpu_seconds) / seconds if seconds > 0 else 0.0
        return ResourceSample(
            at=now.at,
            cpu_cores=cpu_cores,
            memory_bytes=now.memory_bytes,
            disk_read_bytes=max(0, now.disk_read_bytes - before.disk_read_bytes),
            disk_written_bytes=max(0, now.disk_written_bytes - before.disk_written_bytes),
        )

    def usage(self) -> ResourceUsage:
        """Totals so far."""
        return self._usage(self._read())

    def final(
        self, *, cpu_seconds: float, disk_read_bytes: int, disk_written_bytes: int, peak_memory_bytes: int
    ) -> ResourceUsage:
        """Totals of a tree that is gone, as its reaper counted them; the peak is the largest process's."""
        self._peak_memory_bytes = max(self._peak_memory_bytes, peak_memory_bytes)
        self._last = _Reading(
            at=datetime.now(UTC),
            cpu_seconds=max(cpu_seconds, self._last.cpu_seconds),
            disk_read_bytes=max(disk_read_bytes, self._last.disk_read_bytes),
            disk_written_bytes=max(disk_written_bytes, self._last.disk_written_bytes),
        )
        return self._usage(self._last)

    def memory_bytes(self, *, more_than: int) -> int:
        """
        Memory of the tree: resident, or, when that would be more than `more_than`, proportional.

        Resident memory counts what forked processes share once for each; the proportional set size does not, but
        costs the kernel a walk over all pages.
        """
        resident = self._read().memory_bytes
        if resident <= more_than:
            return resident
        return sum(_proportional_bytes(process) for process in self._processes())

    def _usage(self, reading: _Reading) -> ResourceUsage:
        return ResourceUsage(
            cpu_time=timedelta(seconds=reading.cpu_seconds),
            peak_memory_bytes=self._peak_memory_bytes,
            disk_read_bytes=reading.disk_read_bytes,
            disk_written_bytes=reading.disk_written_bytes,
        )

    def _processes(self) -> list[psutil.Process]:
        try:
            if not _CHILDREN.exists():
                return self._root.children(recursive=True)
            return list(_known(_descendants(self._root.pid)))
        except (psutil.Error, AttributeError):
            return []

    def _read(self) -> _Reading:
        cpu_seconds, memory, read, written = self._reaped_cpu_seconds(), 0, 0, 0
        processes = self._processes()
        for cpu, resident, read_bytes, written_bytes in _readings(processes):
            cpu_seconds += cpu
            memory += resident
            read += read_bytes
            written += written_bytes
        self._peak_memory_bytes = max(self._peak_memory_bytes, memory, *map(_own_peak_bytes, processes))
        last = self._last
        self._last = _Reading(
            at=datetime.now(UTC),
            cpu_seconds=max(cpu_seconds, last.cpu_seconds),
            memory_bytes=memory,
            disk_read_bytes=max(read, last.disk_read_bytes),
            disk_written_bytes=max(written, last.disk_written_bytes),
        )
        return self._last

    def _reaped_cpu_seconds(self) -> float:
        try:
            times = self._root.cpu_times()
        except (psutil.Error, AttributeError):
            return 0.0
        return times.children_user + times.children_system


def subtract_usage(later: ResourceUsage, earlier: ResourceUsage) -> ResourceUsage:
    """What was used between two totals of one tree. The peak of memory is the later one's."""
    return ResourceUsage(
        cpu_time=max(timedelta(), later.cpu_time - earlier.cpu_time),
        peak_memory_bytes=later.peak_memory_bytes,
        disk_read_bytes=max(0, later.disk_read_bytes - earlier.disk_read_bytes),
        disk_written_bytes=max(0, later.disk_written_bytes - earlier.disk_written_bytes),
    )


def _descendants(root: int) -> list[int]:
    """As the kernel lists them (`proc_pid_task_children(5)`); psutil reads all processes of the machine for that."""
    found: list[int] = []
    parents = [root]
    while parents:
        with contextlib.suppress(OSError):  # it has just ended
            for thread in Path(f"/proc/{parents.pop()}/task").iterdir():
                children = [int(pid) for pid in (thread / "children").read_bytes().split()]
                found += children
                parents += children
    return found


def _known(pids: list[int]) -> Iterator[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            yield psutil.Process(pid)


def _readings(processes: list[psutil.Process]) -> Iterator[tuple[float, int, int, int]]:
    for process in processes:
        with contextlib.suppress(psutil.Error), process.oneshot():
            times = process.cpu_times()
            cpu = times.user + times.system + times.children_user + times.children_system
            read = written = 0
            if hasattr(process, "io_counters"):
                with contextlib.suppress(psutil.Error):
                    counters = process.io_counters()
                    read, written = counters.read_bytes, counters.write_bytes
            yield cpu, process.memory_info().rss, read, written


def _own_peak_bytes(process: psutil.Process) -> int:
    """The most memory that the process itself ever had; 0 when that is not known."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{process.pid}/status").read_bytes().splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


def _proportional_bytes(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
    except psutil.Error:
        return 0
    return int(getattr(full, "pss", full.rss))
