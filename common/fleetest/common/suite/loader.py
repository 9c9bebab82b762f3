"""Reads a suite: the text of a `fleetest.yaml` becomes tasks, or a list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from fleetest.common.kinds.kind import Kind, Work
from fleetest.common.suite.combining import with_combining
from fleetest.common.suite.document import read_document
from fleetest.common.suite.drafts import read_drafts
from fleetest.common.suite.environments import choose_environment, in_environment
from fleetest.common.suite.graph import resolve_needs
from fleetest.common.suite.inputs import check_inputs, resolve_inputs
from fleetest.common.suite.model import RequiresModel, SuiteModel, TaskModel
from fleetest.common.suite.placeholders import settled
from fleetest.common.suite.problems import Findings
from fleetest.common.suite.services import check_services
from fleetest.common.suite.task_models import check_defaults, task_model
from fleetest.common.suite.tree import Entry, Node, mapping, without
from fleetest.common.suite.uses import check_gangs, check_schedules, resolve_uses
from fleetest.common.suite.validation import validated
from fleetest.common.tasks import Input, Need, Resources, Task, Timeouts, Use

__all__ = ["Suite", "load_suite"]

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """
    A suite, read: defaults applied, matrices expanded.

    Args:
        project: empty when the file does not name one.
        supersede: `branch`: a new run cancels older ones of the same project, suite and branch; empty: it does not.
        fail_fast: the first task that fails cancels the rest.
        environment: the name of that which the tasks are for; empty without one.
        tasks: in the order of the file, and of the values in a matrix.
    """

    name: str
    project: str = ""
    supersede: str = ""
    fail_fast: bool = False
    environment: str = ""
    tasks: tuple[Task, ...]


def load_suite(text: str, *, source: str, environment: str = "", settings: Mapping[str, str] = _NOTHING) -> Suite:
    """
    Read and check a suite. The same arguments give an equal suite; nothing else is looked at.

    Args:
        source: what the text is called in messages: `fleetest.yaml`.
        environment: which of the suite's environments it is to run in; empty means the suite's own choice.
        settings: what is to be other in that environment than the suite says, as in `services.shop.url`.

    Raises:
        SuiteInvalid: it cannot be used; carries every problem, in file order.
    """
    findings = Findings(source)
    root = read_document(text, findings)
    head = _read_head(root, findings)
    drafts = read_drafts(root, findings)
    models = [validated(task_model(draft.kind), draft.node, findings) if draft.node else None for draft in drafts]
    taken = resolve_inputs(drafts, findings)
    implied = {name: {each.input.task: each.place for each in of_task} for name, of_task in taken.items()}
    needs = resolve_needs(drafts, findings, implied)
    works = [
        draft.kind.work(model) if draft.kind and model else None for draft, model in zip(drafts, models, strict=True)
    ]
    check_gangs(drafts, models, works, findings)
    check_schedules(drafts, models, works, findings)
    check_inputs(drafts, models, works, taken, findings)
    uses = resolve_uses(drafts, models, works, head.pools, findings) if head else {}
    chosen = choose_environment(root, environment, settings, findings)
    check_services(drafts, models, works, needs, findings)
    findings.raise_if_any()
    assert head
    inputs = {name: tuple(each.input for each in of_task) for name, of_task in taken.items()}
    tasks = tuple(
        _task(
            draft.name, draft.kind, model, work, needs[draft.name], uses.get(draft.name, ()), inputs.get(draft.name, ())
        )
        for draft, model, work in zip(drafts, models, works, strict=True)
        if model and draft.kind and work
    )
    if chosen:
        places = {draft.name: draft.node.place for draft in drafts if draft.node}
        tasks = in_environment(tasks, chosen, places, findings)
        findings.raise_if_any()
    return Suite(
        name=head.name,
        project=head.project,
        supersede=head.supersede,
        fail_fast=head.fail_fast,
        environment=chosen.name if chosen else "",
        tasks=with_combining(tasks),
    )


def _read_head(root: Node, findings: Findings) -> SuiteModel | None:
    """The suite without its tasks: these are checked one by one, once they are complete."""
    head = without(root, "defaults")
    tasks = head.entries.get("tasks")
    if tasks and isinstance(tasks.value.content, dict):
        none_yet = Entry(key=tasks.key, value=mapping(tasks.value.place, {}))
        head = mapping(root.place, {**head.entries, "tasks": none_yet})
    if defaults := root.get("defaults"):
        check_defaults(settled(defaults), findings)
    return validated(SuiteModel, head, findings)


def _task(
    name: str,
    kind: Kind,
    model: TaskModel,
    work: Work,
    needs: Sequence[Need],
    uses: tuple[Use, ...],
    inputs: tuple[Input, ...],
) -> Task:
    requires, timeouts = model.requires, model.timeouts
    return Task(
        name=name,
        type=kind.name,
        runner=work.runner,
        args=work.args,
        command=work.command,
        shell=work.shell,
        cases=work.cases,
        image=model.image or work.image,
        pull=model.pull,
        network=model.network,
        setup=tuple(model.setup),
        setup_inputs=tuple(model.setup_inputs),
        env={**work.env, **model.env},
        secrets=tuple(model.secrets),
        working_directory=model.working_directory,
        python=model.python,
        executor=model.executor,
        requirements={**work.requirements, **requires.capabilities},
        resources=Resources(
            cpu_millis=round(_cpu(requires, work) * 1000), memory_bytes=requires.memory, disk_bytes=requires.disk
        ),
        priority=model.priority,
        needs=tuple(needs),
        timeouts=Timeouts(queue=timeouts.queue, start=timeouts.start, silence=timeouts.silence, total=timeouts.total),
        retries=model.retries,
        retry_on=frozenset(model.retry_on),
        shards=work.shards or model.shards,
        split=work.split,
        maxfail=work.maxfail,
        last_failed=work.last_failed,
        artifacts=(*model.artifacts, *(str(PurePosixPath(model.working_directory, glob)) for glob in work.artifacts)),
        artifacts_keep=model.artifacts_keep or timedelta(),
        artifacts_when=model.artifacts_when,
        reports=work.reports,
        report_options=work.report_options,
        cache=work.cache,
        coverage=work.coverage,
        uses=uses,
        gang=work.gang,
        service=work.service,
        load=work.load,
        inputs=inputs,
    )


def _cpu(requires: RequiresModel, work: Work) -> float:
    return requires.cpu if work.cpu is None or "cpu" in requires.model_fields_set else work.cpu
