"""The machine, or the container, that the worker runs on: what it has, and what of it is in use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil
from msgspec.structs import replace

from fleetest.common.clock import Clock
from fleetest.common.results import ResourceSample
from fleetest.common.tasks import Resources
from fleetest.worker.cgroup import Cgroup

__all__ = ["LocalHost", "capacity_of", "default_slots"]

_MOST_SLOTS: Final = 5
_MEMORY_PER_SLOT: Final = 512 << 20
_SHORT_MEMORY_SHARE: Final = 0.1


def capacity_of(directory: Path, cgroup: Cgroup, *, containers: Resources | None = None) -> Resources:
    """
    What the worker may hand out: the machine's, within the limits of its container; disk where `directory` lies.

    Args:
        containers: cpu and memory of an Engine whose containers are beside the worker's own, and not within its limits.
    """
    disk_bytes = psutil.disk_usage(str(directory)).free
    if containers is not None:
        return replace(containers, disk_bytes=disk_bytes)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    return Resources(
        cpu_millis=min(cpus * 1000, cgroup.cpu_millis or cpus * 1000),
        memory_bytes=min(psutil.virtual_memory().total, cgroup.memory_bytes or psutil.virtual_memory().total),
        disk_bytes=disk_bytes,
    )


def default_slots(capacity: Resources) -> int:
    """Five, unless cpu or memory is short: a slot for each core and each 512 MiB, and at least one."""
    return max(1, min(_MOST_SLOTS, capacity.cpu_millis // 1000, capacity.memory_bytes // _MEMORY_PER_SLOT))


class LocalHost:
    """This machine. A sample covers the time since the one before, the first since the object was made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counters = _counters()
        psutil.cpu_percent()

    def sample(self) -> ResourceSample:
        before, self._counters = self._counters, _counters()
        read, written, received, sent = (max(0, now - then) for now, then in zip(self._counters, before, strict=True))
        memory = psutil.virtual_memory()
        return ResourceSample(
            at=self._clock.now(),
            cpu_cores=psutil.cpu_percent() / 100 * (psutil.cpu_count() or 1),
            memory_bytes=memory.total - memory.available,
            disk_read_bytes=read,
            disk_written_bytes=written,
            network_received_bytes=received,
            network_sent_bytes=sent,
        )

    def memory_is_short(self) -> bool:
        memory = psutil.virtual_memory()
        return bool(memory.available < memory.total * _SHORT_MEMORY_SHARE)


def _counters() -> tuple[int, int, int, int]:
    """Disk bytes read and written, network bytes received and sent, since the machine started."""
    disk, network = psutil.disk_io_counters(), psutil.net_io_counters()
    return (
        disk.read_bytes if disk else 0,
        disk.write_bytes if disk else 0,
        network.bytes_recv if network else 0,
        network.bytes_sent if network else 0,
    )
