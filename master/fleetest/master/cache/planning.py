"""Which cases of a plan need not run, since the cache knows what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import msgspec
import structlog

from fleetest.common.results import PlannedCase
from fleetest.common.states import Outcome
from fleetest.common.tasks import Task
from fleetest.master.cache.entries import CachedCase, Cases, entry_key
from fleetest.master.cache.result_cache import ResultCache
from fleetest.master.planning import Planning
from fleetest.master.runs.planner import Plan
from fleetest.master.runs.results import KeptResult
from fleetest.master.runs.state import RunStatus

__all__ = ["CachedPlanning", "sampled", "with_hits"]

_log = structlog.get_logger()

Deal = Callable[[Task, Sequence[PlannedCase]], Awaitable[Plan]]
"""Deals cases to shards."""


class CachedPlanning:
    """Plans as another does, with what the cache knows."""

    def __init__(self, planning: Planning, cache: ResultCache) -> None:
        self._planning = planning
        self._cache = cache

    async def plan(
        self, status: RunStatus, task: Task, cases: Sequence[PlannedCase], fingerprints: Mapping[str, str]
    ) -> Plan:
        """
        Deal cases to shards; those with a usable result have it instead, except for a sample of them.

        Args:
            fingerprints: by file; the cases of others are dealt as if there was no cache.

        Raises:
            DependencyUnavailable: as `Planning.plan` does.
        """
        deal = partial(self._planning.plan, status)
        if task.cache is None or not fingerprints:
            return await deal(task, cases)
        project, files = status.request.project, {case.file for case in cases}
        keys = {file: entry_key(project, task, file, fingerprints[file]) for file in files & fingerprints.keys()}
        known = await self._cache.look_up(project, keys.values())
        hits = _hits(cases, keys, known)
        share = task.cache.sample
        plan = await with_hits(task, cases, hits, deal, lambda case_id: sampled(status.run_id, case_id, share))
        _log.info(
            "cache_looked_up",
            run_id=status.run_id,
            task=task.name,
            cases=len(plan.cases),
            cached=len(plan.cached),
            sampled=len(plan.sampled),
            files=len(files),
            files_known=len(known),
        )
        return replace(plan, cache_keys=keys)


def sampled(run_id: str, case_id: str, share: float) -> bool:
    """Whether a cached case is run all the same: always the same cases of a run, but others in the next one."""
    digest = hashlib.sha256(f"{run_id}/{case_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


async def with_hits(
    task: Task, cases: Sequence[PlannedCase], hits: Cases, deal: Deal, is_sampled: Callable[[str], bool]
) -> Plan:
    """The task's plan, with only those of its cases dealt to shards that are no hits, or sampled."""
    whole = await deal(task, cases)
    of_plan = {case.case_id: hits[case.case_id] for case in whole.cases if case.case_id in hits}
    checked = {case_id: hit.origin for case_id, hit in of_plan.items() if is_sampled(case_id)}
    spared = {case_id: hit for case_id, hit in of_plan.items() if case_id not in checked}
    if not spared:
        return replace(whole, sampled=checked)
    # What the task asks for has been chosen already.
    rest = await deal(
        replace(task, only_cases=(), last_failed=False), [case for case in whole.cases if case.case_id not in spared]
    )
    index = {case.case_id: number for number, case in enumerate(whole.cases)}
    return replace(
        whole,
        shards=tuple(
            msgspec.structs.replace(shard, cases=tuple(index[rest.cases[each].case_id] for each in shard.cases))
            for shard in rest.shards
        ),
        predicted=rest.predicted,
        cached=tuple(_result(case, spared[case.case_id]) for case in whole.cases if case.case_id in spared),
        sampled=checked,
    )


def _hits(cases: Sequence[PlannedCase], keys: Mapping[str, str], known: Mapping[str, Cases]) -> Cases:
    hits: dict[str, CachedCase] = {}
    for case in cases:
        of_file = known.get(keys.get(case.file, ""), {})
        if case.case_id in of_file:
            hits[case.case_id] = of_file[case.case_id]
    return hits


def _result(case: PlannedCase, hit: CachedCase) -> KeptResult:
    return KeptResult(
        case_id=case.case_id,
        outcome=Outcome.PASSED,
        duration=hit.duration,
        file=case.file,
        line=case.line,
        whole=hit.whole,
        cached_from=hit.origin,
    )
