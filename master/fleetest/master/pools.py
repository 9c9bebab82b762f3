"""Named resources of the whole cluster: that its pools, which no suite knows, have what a task uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from fleetest.common.errors import InvalidRequest
from fleetest.common.tasks import CLUSTER_WIDE, Access, Task, Use

__all__ = ["with_cluster_pools"]

_HINT: Final = "The master's FLEETEST_POOLS says which pools the cluster has: {known}."


def with_cluster_pools(tasks: Sequence[Task], pools: Mapping[str, int]) -> tuple[Task, ...]:
    """
    The tasks, with the size of each pool of the cluster that they use.

    Raises:
        InvalidRequest: there is no such pool, it has less, or one is not used as a pool; all problems together.
    """
    problems = [problem for task in tasks for use in task.uses if (problem := _problem(task, use, pools)) is not None]
    if problems:
        known = ", ".join(f"{name}={size}" for name, size in sorted(pools.items())) or "none"
        raise InvalidRequest("\n".join(problems), hint=_HINT.format(known=known))
    return tuple(
        replace(task, uses=tuple(_sized(use, pools) for use in task.uses)) if task.uses else task for task in tasks
    )


def _sized(use: Use, pools: Mapping[str, int]) -> Use:
    if use.access is not Access.COUNTED or not use.resource.startswith(CLUSTER_WIDE):
        return use
    return replace(use, size=pools[use.resource.removeprefix(CLUSTER_WIDE)])


def _problem(task: Task, use: Use, pools: Mapping[str, int]) -> str | None:
    if not use.resource.startswith(CLUSTER_WIDE):
        return None
    size = pools.get(use.resource.removeprefix(CLUSTER_WIDE))
    if use.access is not Access.COUNTED:
        return None if size is None else f"{task.name} uses {use.resource} {use.access}, which is a pool of {size}"
    if size is None:
        return f"{task.name} uses {use}, and the cluster has no such pool"
    together = task.shards or 1 if task.gang is not None else 1
    if use.amount * together <= size:
        return None
    each = f" for each of {together} shards together" if together > 1 else ""
    return f"{task.name} uses {use}{each}, of which there are {size}"
