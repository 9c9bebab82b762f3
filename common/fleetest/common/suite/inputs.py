"""What tasks of a suite take of one another: that who is to leave it exists, and keeps artifacts at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.drafts import Draft
from fleetest.common.suite.graph import targets_of
from fleetest.common.suite.model import InputModel, InputsModel, TaskModel
from fleetest.common.suite.problems import Findings, Place, closest
from fleetest.common.suite.validation import validated
from fleetest.common.tasks import Input, RunnerType

__all__ = ["Taken", "check_inputs", "resolve_inputs"]

_SERVICE: Final = RunnerType.SERVICE.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """
    What is taken of one task.

    Args:
        place: where that stands in the file.
    """

    input: Input
    place: Place


def resolve_inputs(drafts: Sequence[Draft], findings: Findings) -> Mapping[str, Sequence[Taken]]:
    """
    What each draft takes, by its name; in the order in which it is written.

    The name of a task with a matrix means all the tasks that it became.
    """
    if not any(draft.inputs is not None for draft in drafts):
        return {}
    targets = targets_of(drafts)
    services = {draft.name for draft in drafts if draft.kind is not None and draft.kind.name == _SERVICE}
    return {draft.name: _taken_by(draft, targets, services, findings) for draft in drafts if draft.inputs is not None}


def check_inputs(
    drafts: Sequence[Draft],
    models: Sequence[TaskModel | None],
    works: Sequence[Work | None],
    taken: Mapping[str, Sequence[Taken]],
    findings: Findings,
) -> None:
    """Who is to leave something must keep artifacts."""
    if not taken:
        return
    empty_handed = {
        draft.name
        for draft, model, work in zip(drafts, models, works, strict=True)
        if model is not None and work is not None and not model.artifacts and not work.artifacts
    }
    for each in (each for of_task in taken.values() for each in of_task):
        if each.input.task in empty_handed:
            wanted = ", ".join(each.input.files) or "out"
            hint = f"Give '{each.input.task}' `artifacts: [{wanted}]`."
            findings.add(each.place, f"'{each.input.task}' keeps no artifacts that could be taken", hint)


def _taken_by(
    draft: Draft, targets: Mapping[str, Sequence[str]], services: set[str], findings: Findings
) -> Sequence[Taken]:
    assert draft.inputs is not None
    written = draft.inputs
    model = validated(InputsModel, written, findings, subject="inputs")
    places = {name: entry.key for name, entry in written.entries.items()}
    places |= {item.text or "": item.place for item in reversed(written.items)}
    taken: dict[str, Taken] = {}
    for name, wanted in model.root.items() if model else ():
        place = places.get(name, written.place)
        if name not in targets:
            findings.add(place, f"no task is called '{name[:100]}'", closest(name, targets))
        for target in targets.get(name, ()):
            if target in services:
                message = f"'{target}' is a service, which runs as long as it is needed: nothing can be taken of it"
                findings.add(place, message, "Take files of a task that ends.")
            elif target in taken:
                findings.add(place, f"what is taken of '{target}' is said twice", "Take one out.")
            else:
                taken[target] = Taken(input=_input(target, wanted), place=place)
    return list(taken.values())


def _input(task: str, model: InputModel) -> Input:
    into = str(PurePosixPath(model.into)) if model.into else ""
    return Input(task=task, files=tuple(model.files), into=into if into != "." else "", optional=model.optional)
