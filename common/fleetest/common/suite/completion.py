"""Fills in what a task does not say itself: its type, and the defaults that fit it."""

from __future__ import annotations

from typing import Final

from fleetest.common.suite.problems import Findings, Place
from fleetest.common.suite.tree import Entry, Node, mapping, scalar, without
from fleetest.common.tasks import TaskType

__all__ = ["completed"]

_ONLY_PYTEST: Final = ("args", "split", "maxfail", "cache")
_PROGRAM: Final = ("command", "run")
_ONLY_COMMAND: Final = (*_PROGRAM, "reports")
_MERGED_BY_KEY: Final = frozenset({"env", "requires", "timeouts"})


def completed(own: Node, defaults: Node, name: Place, findings: Findings) -> Node:
    """
    A task's own keys, the defaults that fit its type, and its type.

    `env`, `requires` and `timeouts` are merged key by key; of everything else, the task's own replaces the default.

    Args:
        name: where the task's name stands.
    """
    task_type = _type_of(own) or _type_of(defaults)
    foreign = _foreign_keys(task_type)
    for key in foreign & own.entries.keys():
        findings.add(own.entries[key].key, f"'{key}' is not for a {task_type} task", "Take it out.")
    replaced = _PROGRAM if any(key in own.entries for key in _PROGRAM) else ()
    inferred = ("type",) if task_type else ()
    node = _merged(without(defaults, *inferred, *foreign, *replaced), own)
    _check_what_to_run(node, task_type, name, findings)
    _check_secrets(node, findings)
    _check_cache(node, findings)
    if task_type and "type" not in own.entries:
        entry = Entry(key=name, value=scalar(name, task_type.value))
        node = mapping(node.place, {"type": entry, **node.entries})
    return node


def _type_of(node: Node) -> TaskType | None:
    if "type" in node.entries:
        text = node.entries["type"].value.text
        return TaskType(text) if text in list(TaskType) else None
    if any(key in node.entries for key in _PROGRAM):
        return TaskType.COMMAND
    return TaskType.PYTEST if "args" in node.entries else None


def _foreign_keys(task_type: TaskType | None) -> frozenset[str]:
    match task_type:
        case TaskType.PYTEST:
            return frozenset(_ONLY_COMMAND)
        case TaskType.COMMAND:
            return frozenset(_ONLY_PYTEST)
        case None:
            return frozenset()


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


def _check_what_to_run(node: Node, task_type: TaskType | None, name: Place, findings: Findings) -> None:
    given = [node.entries[key].key for key in _PROGRAM if key in node.entries]
    if len(given) > 1:
        findings.add(max(given), "a task has `command` or `run`, not both", "Take one out.")
    elif task_type is None and "type" not in node.entries:
        hint = "Give it `args` or `type: pytest`, or else `command` or `run`."
        findings.add(name, "this task does not say what to run", hint)
    elif task_type is TaskType.COMMAND and not given:
        findings.add(name, "a command task needs `command` or `run`", "As in `run: make check`.")


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
