"""
How much of a worker a shard takes, learnt from what its task used in earlier runs.

What fits is judged by the request, packing by what was measured: Borg's resource reclamation (Verma et al., EuroSys
2015, section 5.5), where a task's reservation follows its usage with a safety margin, never above its limit. As
there, it rises at once and falls slowly: the estimate is the highest of the last few runs, Autopilot's moving window
with the peak as its statistic, meant for what must not run out of memory (Rzadca et al., EuroSys 2020, section
3.2.2). The margin is a little more than the 10 to 15 percent of that paper, since peaks of plain processes are only
sampled.

Memory is never packed below the highest peak of those runs and the margin, unless the request is less, which is the
limit that holds the shard. Cpu time can be shared without harm, so cpu is packed by the mean number of cores. Disk is
packed as requested.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from fleetest.common.results import ResourceUsage
from fleetest.common.states import TaskState
from fleetest.common.tasks import Resources
from fleetest.master.runs.task_status import TaskStatus

__all__ = ["lasted", "packed", "telling_usage"]

MARGIN: Final = 0.2
LEAST_MEMORY_MARGIN_BYTES: Final = 32 << 20
LEAST_CPU_MILLIS: Final = 100
"""Also a task that only waits needs somebody to wake it."""

_LASTING: Final = timedelta(seconds=1)
"""Of all attempts together. What is planned in a part of that is as soon run by the slot that planned it."""

_TELLING: Final = frozenset({TaskState.PASSED, TaskState.FAILED, TaskState.TIMED_OUT})


def packed(request: Resources, usages: Sequence[ResourceUsage]) -> Resources:
    """
    What a shard takes of a worker's free room.

    Args:
        request: what the task asks for; of memory, zero means that it has no limit.
        usages: of the task in its last runs. Without any, or for what they did not measure, the request stands.
    """
    return Resources(
        cpu_millis=_cpu_millis(request, usages),
        memory_bytes=_memory_bytes(request, usages),
        disk_bytes=request.disk_bytes,
    )


def lasted(usages: Sequence[ResourceUsage]) -> bool:
    """Whether a task took so long in its last run, the first of these, that several slots could have a share in it."""
    return bool(usages) and (usages[0].wall_time or timedelta()) >= _LASTING


def telling_usage(status: TaskStatus) -> ResourceUsage | None:
    """What an ended task used, when that says something of its next run: all of it ran, and was measured."""
    task, usage = status.task, status.usage
    partly = bool(task.only_cases) or task.last_failed or bool(status.counts.cached) or status.state not in _TELLING
    return None if partly or not (usage.wall_time and usage.peak_memory_bytes) else usage


def _cpu_millis(request: Resources, usages: Sequence[ResourceUsage]) -> int:
    cores = [usage.mean_cores for usage in usages if usage.mean_cores is not None]
    if not cores:
        return request.cpu_millis
    return min(request.cpu_millis, max(LEAST_CPU_MILLIS, math.ceil(max(cores) * 1000 * (1 + MARGIN))))


def _memory_bytes(request: Resources, usages: Sequence[ResourceUsage]) -> int:
    peak = max((usage.peak_memory_bytes for usage in usages), default=0)
    if not peak:
        return request.memory_bytes
    needed = peak + max(LEAST_MEMORY_MARGIN_BYTES, math.ceil(peak * MARGIN))
    return min(needed, request.memory_bytes) if request.memory_bytes else needed
