"""Named resources: that tasks use pools as the suite declares them, and no more of one than there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleetest.common.suite.drafts import Draft
from fleetest.common.suite.model import TaskModel
from fleetest.common.suite.problems import Fault, Findings, closest
from fleetest.common.tasks import CLUSTER_WIDE, Access, Use

__all__ = ["resolve_uses"]


def resolve_uses(
    drafts: Sequence[Draft], models: Sequence[TaskModel | None], pools: Mapping[str, int], findings: Findings
) -> Mapping[str, tuple[Use, ...]]:
    """
    What each task uses, by its name; in the order of the names, so that it does not matter how they are written.

    How many there are of what all projects of a cluster share is not known here: such a pool has no size yet.
    """
    uses: dict[str, tuple[Use, ...]] = {}
    for draft, model in zip(drafts, models, strict=True):
        written = draft.node.get("uses") if draft.node and model else None
        if model is None or written is None:
            continue
        for name, how in model.uses.items():
            fault = _fault(name, how, pools)
            if fault is not None:
                findings.add(written.entries[name].value.place, fault.message, fault.hint)
        uses[draft.name] = tuple(_use(name, how, pools) for name, how in sorted(model.uses.items()))
    return uses


def _use(name: str, how: str | int, pools: Mapping[str, int]) -> Use:
    if isinstance(how, int):
        return Use(resource=name, access=Access.COUNTED, amount=int(how), size=pools.get(name, 0))
    return Use(resource=name, access=Access(how))


def _fault(name: str, how: str | int, pools: Mapping[str, int]) -> Fault | None:
    size = pools.get(name)
    if not isinstance(how, int):
        hint = f"Say how many of them each shard uses: 1 to {size}, where {size} keeps out all others."
        return None if size is None else Fault(message=f"'{name}' is a pool of {size}", hint=hint)
    if size is None and not name.startswith(CLUSTER_WIDE):
        return Fault(message=f"there is no pool '{name}'", hint=_declare(name, pools))
    if size is not None and how > size:
        return Fault(message=f"there are {size} of '{name}', and a shard would use {how}", hint="Use fewer.")
    return None


def _declare(name: str, pools: Mapping[str, int]) -> str:
    near = closest(name, pools)
    known = near() if callable(near) else near
    how = f"Say how many there are at the top of the suite, as in `pools: {{{name}: 5}}`."
    return f"{known} {how}".strip()
