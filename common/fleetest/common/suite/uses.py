"""
Named resources, gangs and schedules: that tasks use pools as the suite declares them, no more of one than there is,
that a gang can be one, and that a load test has the time that it takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.drafts import Draft
from fleetest.common.suite.durations import format_duration
from fleetest.common.suite.model import TaskModel
from fleetest.common.suite.problems import Fault, Findings, closest
from fleetest.common.tasks import CLUSTER_WIDE, Access, Use

__all__ = ["check_gangs", "check_schedules", "resolve_uses"]

_MAX_GANG: Final = 500
_MARGIN: Final = timedelta(minutes=1)


def check_gangs(
    drafts: Sequence[Draft], models: Sequence[TaskModel | None], works: Sequence[Work | None], findings: Findings
) -> None:
    """A gang has a number of shards that is known from the beginning."""
    for draft, model, work in zip(drafts, models, works, strict=True):
        if draft.node is None or model is None or work is None or work.gang is None:
            continue
        place = draft.node.entries["gang"].key if "gang" in draft.node.entries else draft.node.place
        shards = work.shards or model.shards
        if work.cases:
            findings.add(place, "a gang has no `cases`", "They are dealt to shards that start when they can.")
        elif shards is None:
            findings.add(place, "a gang needs a number of shards", "As in `shards: 4`: they start together.")
        elif shards > _MAX_GANG:
            findings.add(place, f"a gang of {shards} shards is too large", f"It has at most {_MAX_GANG}.")


def check_schedules(
    drafts: Sequence[Draft], models: Sequence[TaskModel | None], works: Sequence[Work | None], findings: Findings
) -> None:
    """No limit ends a load test before its schedule does."""
    for draft, model, work in zip(drafts, models, works, strict=True):
        if draft.node is None or model is None or work is None or work.load is None:
            continue
        length, limit = work.load.length, model.timeouts.total
        if limit is not None and length >= limit:
            stages = draft.node.entries.get("stages")
            message = f"the schedule takes {format_duration(length)}, and `timeouts.total` is {format_duration(limit)}"
            hint = f"As in `timeouts: {{total: {format_duration(length + max(length / 10, _MARGIN))}}}`."
            findings.add(stages.key if stages else draft.node.place, message, hint)


def resolve_uses(
    drafts: Sequence[Draft],
    models: Sequence[TaskModel | None],
    works: Sequence[Work | None],
    pools: Mapping[str, int],
    findings: Findings,
) -> Mapping[str, tuple[Use, ...]]:
    """
    What each task uses, by its name; in the order of the names, so that it does not matter how they are written.

    How many there are of what all projects of a cluster share is not known here: such a pool has no size yet.
    """
    uses: dict[str, tuple[Use, ...]] = {}
    for draft, model, work in zip(drafts, models, works, strict=True):
        written = draft.node.get("uses") if draft.node and model else None
        if model is None or written is None:
            continue
        together = work.shards or model.shards or 1 if work is not None and work.gang is not None else 1
        for name, how in model.uses.items():
            fault = _fault(name, how, pools, together)
            if fault is not None:
                findings.add(written.entries[name].value.place, fault.message, fault.hint)
        uses[draft.name] = tuple(_use(name, how, pools) for name, how in sorted(model.uses.items()))
    return uses


def _use(name: str, how: str | int, pools: Mapping[str, int]) -> Use:
    if isinstance(how, int):
        return Use(resource=name, access=Access.COUNTED, amount=int(how), size=pools.get(name, 0))
    return Use(resource=name, access=Access(how))


def _fault(name: str, how: str | int, pools: Mapping[str, int], together: int) -> Fault | None:
    size = pools.get(name)
    if not isinstance(how, int):
        hint = f"Say how many of them each shard uses: 1 to {size}, where {size} keeps out all others."
        return None if size is None else Fault(message=f"'{name}' is a pool of {size}", hint=hint)
    if size is None and not name.startswith(CLUSTER_WIDE):
        return Fault(message=f"there is no pool '{name}'", hint=_declare(name, pools))
    if size is not None and how > size:
        return Fault(message=f"there are {size} of '{name}', and a shard would use {how}", hint="Use fewer.")
    if size is not None and how * together > size:
        message = f"there are {size} of '{name}', and {together} shards that start together would use {how * together}"
        return Fault(message=message, hint="Use fewer.")
    return None


def _declare(name: str, pools: Mapping[str, int]) -> str:
    near = closest(name, pools)
    known = near() if callable(near) else near
    how = f"Say how many there are at the top of the suite, as in `pools: {{{name}: 5}}`."
    return f"{known} {how}".strip()
