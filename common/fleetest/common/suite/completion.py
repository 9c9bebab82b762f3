"""Fills in what a task does not say itself: its kind, and the defaults that fit it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from fleetest.common.kinds.kind import Kind
from fleetest.common.kinds.registry import IMPLIED, kind_of
from fleetest.common.suite.problems import Findings, Place
from fleetest.common.suite.task_models import COMMON_KEYS, is_key_of_a_kind, named_kind
from fleetest.common.suite.tree import Entry, Node, mapping, scalar, without

__all__ = ["completed"]

_MERGED_BY_KEY: Final = frozenset({"env", "requires", "timeouts"})


def completed(own: Node, defaults: Node, name: Place, findings: Findings) -> tuple[Node, Kind | None]:
    """
    A task's own keys, the defaults that fit its kind, and its kind; that is `None` when nothing tells it.

    `env`, `requires` and `timeouts` are merged key by key; of everything else, the task's own replaces the default.

    Args:
        name: where the task's name stands.
    """
    named = "type" in own.entries or "type" in defaults.entries
    kind = _kind_of(own, defaults, findings)
    known = COMMON_KEYS | frozenset(kind.keys.model_fields if kind else _implying_keys())
    foreign = [key for key in own.entries if key not in known and is_key_of_a_kind(key)]
    for key in foreign if kind else ():
        assert kind
        findings.add(own.entries[key].key, f"'{key}' is not for a {kind.name} task", "Take it out.")
    replaced = kind.one_of if kind and _has_any(own, kind.one_of) else ()
    other_kinds = [key for key in defaults.entries if key not in known]
    inferred = ("type",) if kind else ()
    node = _merged(without(defaults, *inferred, *other_kinds, *replaced), without(own, *foreign))
    if kind:
        _check_one_of(node, kind, name, findings)
    elif not named:
        hint = "Give it `args` or `type: pytest`, or else `command` or `run`."
        findings.add(name, "this task does not say what to run", hint)
    _check_secrets(node, findings)
    _check_cache(node, findings)
    if kind and "type" not in own.entries:
        entry = Entry(key=name, value=scalar(name, kind.name))
        node = mapping(node.place, {"type": entry, **node.entries})
    return node, kind


def _kind_of(own: Node, defaults: Node, findings: Findings) -> Kind | None:
    """What the task says it is; else what the defaults say, unless the task's own keys are those of another kind."""
    if "type" in own.entries:
        return named_kind(own.entries["type"].value, findings)
    implied = _implied_kind(own)
    if "type" in defaults.entries:
        kind = named_kind(defaults.entries["type"].value, findings)
        if implied is None or (
            kind and all(key in kind.keys.model_fields for key in own.entries if is_key_of_a_kind(key))
        ):
            return kind
    return implied or _implied_kind(defaults)


def _implied_kind(node: Node) -> Kind | None:
    implied = (kind for name in IMPLIED if (kind := kind_of(name)))
    return next((kind for kind in implied if _has_any(node, kind.implied_by)), None)


def _implying_keys() -> Collection[str]:
    return {key for name in IMPLIED if (kind := kind_of(name)) for key in kind.keys.model_fields}


def _has_any(node: Node, keys: Collection[str]) -> bool:
    return any(key in node.entries for key in keys)


def _merged(defaults: Node, own: Node) -> Node:
    entries = dict(defaults.entries)
    for key, entry in own.entries.items():
        default = entries.get(key)
        value = _merged_deeply(default.value, entry.value) if default and key in _MERGED_BY_KEY else entry.value
        entries[key] = Entry(key=entry.key, value=value)
    return mapping(own.place, entries)


def _merged_deeply(default: Node, own: Node) -> Node:
    if not (isinstance(default.content, dict) and isinstance(own.content, dict)):
        return own
    entries = dict(default.content)
    for key, entry in own.content.items():
        value = _merged_deeply(entries[key].value, entry.value) if key in entries else entry.value
        entries[key] = Entry(key=entry.key, value=value)
    return mapping(own.place, entries)


def _check_one_of(node: Node, kind: Kind, name: Place, findings: Findings) -> None:
    words = " or ".join(f"`{key}`" for key in kind.one_of)
    given = [node.entries[key].key for key in kind.one_of if key in node.entries]
    if len(given) > 1:
        findings.add(max(given), f"a task has {words}, not both", "Take one out.")
    elif kind.one_of and not given:
        findings.add(name, f"a {kind.name} task needs {words}", f"As in `{kind.example}`.")


def _check_secrets(node: Node, findings: Findings) -> None:
    secrets, env = node.get("secrets"), node.get("env")
    for secret in secrets.items if secrets else ():
        if env and secret.text in env.entries:
            findings.add(secret.place, f"'{secret.text}' is in `env` too", "Take one out.")


def _check_cache(node: Node, findings: Findings) -> None:
    cache, secrets = node.get("cache"), node.get("secrets")
    if cache and cache.content is not False and secrets and (secrets.items or secrets.text):
        hint = "Say `cache: false` here, or give the tests that need no secret a task of their own."
        findings.add(cache.place, "results that may depend on secrets are not cached", hint)
