"""Reads a suite: the text of a `fleetest.yaml` becomes tasks, or a list of everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleetest.common.suite.document import read_document
from fleetest.common.suite.drafts import Draft, read_drafts
from fleetest.common.suite.graph import resolve_needs
from fleetest.common.suite.model import DefaultsModel, SuiteModel, TaskModel
from fleetest.common.suite.placeholders import settled
from fleetest.common.suite.problems import Findings
from fleetest.common.suite.pytest_args import interpret_pytest_args
from fleetest.common.suite.tree import Entry, Node, mapping, without
from fleetest.common.suite.uses import resolve_uses
from fleetest.common.suite.validation import validated
from fleetest.common.tasks import CachePolicy, Need, Resources, Task, Timeouts, Use

__all__ = ["Suite", "load_suite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """
    A suite, read: defaults applied, matrices expanded.

    Args:
        project: empty when the file does not name one.
        supersede: `branch`: a new run cancels older ones of the same project, suite and branch; empty: it does not.
        fail_fast: the first task that fails cancels the rest.
        tasks: in the order of the file, and of the values in a matrix.
    """

    name: str
    project: str = ""
    supersede: str = ""
    fail_fast: bool = False
    tasks: tuple[Task, ...]


def load_suite(text: str, *, source: str) -> Suite:
    """
    Read and check a suite. The same text gives an equal suite; nothing outside the text is looked at.

    Args:
        source: what the text is called in messages: `fleetest.yaml`.

    Raises:
        SuiteInvalid: it cannot be used; carries every problem, in file order.
    """
    findings = Findings(source)
    root = read_document(text, findings)
    head = _read_head(root, findings)
    drafts = read_drafts(root, findings)
    models = [validated(TaskModel, draft.node, findings) if draft.node else None for draft in drafts]
    needs = resolve_needs(drafts, findings)
    uses = resolve_uses(drafts, models, head.pools, findings) if head else {}
    findings.raise_if_any()
    assert head
    tasks = tuple(
        _task(draft, model, needs[draft.name], uses.get(draft.name, ()))
        for draft, model in zip(drafts, models, strict=True)
        if model
    )
    return Suite(name=head.name, project=head.project, supersede=head.supersede, fail_fast=head.fail_fast, tasks=tasks)


def _read_head(root: Node, findings: Findings) -> SuiteModel | None:
    """The suite without its tasks: these are checked one by one, once they are complete."""
    head = without(root, "defaults")
    tasks = head.entries.get("tasks")
    if tasks and isinstance(tasks.value.content, dict):
        none_yet = Entry(key=tasks.key, value=mapping(tasks.value.place, {}))
        head = mapping(root.place, {**head.entries, "tasks": none_yet})
    if defaults := root.get("defaults"):
        validated(DefaultsModel, settled(defaults), findings, subject="defaults")
    return validated(SuiteModel, head, findings)


def _task(draft: Draft, model: TaskModel, needs: Sequence[Need], uses: tuple[Use, ...]) -> Task:
    options = interpret_pytest_args(model.args)
    requires, timeouts = model.requires, model.timeouts
    return Task(
        name=draft.name,
        type=model.type,
        args=options.args,
        command=tuple(model.command),
        shell=model.run,
        image=model.image,
        pull=model.pull,
        network=model.network,
        setup=tuple(model.setup),
        setup_inputs=tuple(model.setup_inputs),
        env=model.env,
        secrets=tuple(model.secrets),
        working_directory=model.working_directory,
        python=model.python,
        executor=model.executor,
        requirements=requires.capabilities,
        resources=Resources(
            cpu_millis=round(requires.cpu * 1000), memory_bytes=requires.memory, disk_bytes=requires.disk
        ),
        priority=model.priority,
        needs=tuple(needs),
        timeouts=Timeouts(queue=timeouts.queue, start=timeouts.start, silence=timeouts.silence, total=timeouts.total),
        retries=model.retries,
        retry_on=frozenset(model.retry_on),
        shards=model.shards,
        split=model.split,
        maxfail=model.maxfail if options.maxfail is None else options.maxfail,
        last_failed=options.last_failed,
        artifacts=tuple(model.artifacts),
        reports=tuple(model.reports),
        cache=CachePolicy(inputs=tuple(model.cache.inputs), sample=model.cache.sample) if model.cache else None,
        uses=uses,
    )
