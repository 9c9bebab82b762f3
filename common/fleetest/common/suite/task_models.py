"""The models of whole tasks: what every task has, and what its kind adds."""

from __future__ import annotations

from functools import cache
from typing import Any, Final, cast

from pydantic import create_model

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.kinds.kind import Kind
from fleetest.common.kinds.registry import IMPLIED, all_kinds, kind_names, kind_of
from fleetest.common.suite.model import DefaultsModel, TaskModel
from fleetest.common.suite.placeholders import PLACEHOLDER
from fleetest.common.suite.problems import Findings, closest
from fleetest.common.suite.tree import Node, mapping
from fleetest.common.suite.validation import validated

__all__ = ["COMMON_KEYS", "check_defaults", "is_key_of_a_kind", "named_kind", "task_model"]

COMMON_KEYS: Final = frozenset(TaskModel.model_fields)
"""What a task of any kind may have."""


@cache
def task_model(kind: Kind | None) -> type[TaskModel]:
    """Of a task of this kind; of one whose kind is not known, with the keys that would have told it."""
    kinds = [kind] if kind else [found for name in IMPLIED if (found := kind_of(name))]
    bases: tuple[Any, ...] = (*(each.keys for each in kinds), TaskModel)
    model: Any = create_model("TaskModel", __base__=bases)
    return cast("type[TaskModel]", model)


def is_key_of_a_kind(key: str) -> bool:
    """Whether tasks of some kind have this key."""
    return any(key in kind.keys.model_fields for kind in all_kinds())


def named_kind(node: Node, findings: Findings) -> Kind | None:
    """The kind that stands under `type`; `None` when it is no kind, and then `findings` says so."""
    name = node.text
    if name is None or PLACEHOLDER.search(name):
        return None  # what is wrong with it is found elsewhere
    try:
        kind = kind_of(name)
    except DependencyUnavailable as error:
        findings.add(node.place, f"type: {error.message}", error.hint)
        return None
    if kind is None:
        names = kind_names()
        findings.add(node.place, f"type: text '{name[:60]}' is not one of {', '.join(names)}", closest(name, names))
    return kind


def check_defaults(defaults: Node, findings: Findings) -> None:
    """Keys that every task has must be right for it, and the others for one of the kinds that have them."""
    if "type" in defaults.entries:
        named_kind(defaults.entries["type"].value, findings)
    common = dict(defaults.entries)
    for key, entry in defaults.entries.items():
        kinds = [] if key in COMMON_KEYS else [kind for kind in all_kinds() if key in kind.keys.model_fields]
        if kinds:
            del common[key]
        alone = mapping(defaults.place, {key: entry})
        for kind in kinds:
            tried = findings.empty_copy()
            validated(kind.keys, alone, tried, complete=False)
            if not tried:
                break
        else:
            if kinds:
                findings.take(tried)
    rest = mapping(defaults.place, common) if isinstance(defaults.content, dict) else defaults
    validated(DefaultsModel, rest, findings, subject="defaults")
