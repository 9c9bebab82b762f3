"""What users do: a locustfile's classes, or one that is made of the requests that a suite lists."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from locust import FastHttpUser, between, constant
from locust.user.task import TaskSet
from locust.util.load_locustfile import load_locustfile

__all__ = ["Unfit", "filled", "user_classes"]

# `$${` is how a text says `${` itself.
_PLACEHOLDER = re.compile(r"\$\$\{|\$\{env\.([A-Za-z_][A-Za-z0-9_]*)\}")
_REDIRECTS = range(300, 400)
_BAD = 400


class Unfit(Exception):
    """The scenario cannot be run; says why."""


def user_classes(scenario: dict[str, Any]) -> list[type]:
    """
    The classes of users.

    Raises:
        Unfit: there are none, or not those that were asked for.
    """
    if scenario["locustfile"]:
        return _of_locustfile(scenario)
    return [_of_requests(scenario)]


def _of_locustfile(scenario: dict[str, Any]) -> list[type]:
    path = scenario["locustfile"]
    if not Path(path).is_file():
        raise Unfit(f"there is no file {path} in the workspace")
    loaded = load_locustfile(str(Path(path).absolute()))
    found: dict[str, Any] = next(part for part in loaded if isinstance(part, dict))  # docstrings came first once
    wanted = scenario["classes"] or list(found)
    missing = [name for name in wanted if name not in found]
    if missing or not found:
        known = ", ".join(found) or "none"
        raise Unfit(f"{path} has no class of users {', '.join(missing)}".rstrip() + f"; it has {known}")
    classes: list[Any] = [found[name] for name in wanted]
    for each in classes:
        if scenario["host"]:
            each.host = filled(scenario["host"])
        if not each.tasks:
            raise Unfit(f"{each.__name__} of {path} has no tasks")
        nested = [task.__name__ for task in each.tasks if isinstance(task, type) and issubclass(task, TaskSet)]
        if nested and scenario["model"] == "open":
            raise Unfit(
                f"{each.__name__} of {path} has the task set {nested[0]}: as only itself ends one, it cannot be an "
                "arrival; use the model `closed`, or tasks that are functions"
            )
    return classes


def _of_requests(scenario: dict[str, Any]) -> type:
    host = filled(scenario["host"]).rstrip("/")
    if host and not host.startswith(("http://", "https://")):
        raise Unfit(f"host: {host!r} is not an address: it begins with http:// or https://")
    tasks: dict[Any, int] = {_task(request): request["weight"] for request in scenario["requests"]}
    return type(
        "Requests",
        (FastHttpUser,),
        {
            "tasks": tasks,
            "host": host or "http://unused.invalid",
            "wait_time": _wait_time(scenario["think_time"]),
            "max_redirects": 10,
        },
    )


def _wait_time(times: Sequence[float]) -> Any:
    return between(times[0], times[-1]) if times else constant(0)


def _task(request: dict[str, Any]) -> Any:
    """A function that makes the request, as a task of a user."""
    method, name, expect = request["method"], request["name"], frozenset(request["expect"])
    path, body = filled(request["path"]), filled(request["body"])
    headers = {key: filled(value) for key, value in request["headers"].items()}
    content: dict[str, Any] = {"data": body} if body else {}
    if request["json"] is not None:
        content = {"data": json.dumps(_filled_in(request["json"]))}
        headers.setdefault("Content-Type", "application/json")
    follow = not any(status in _REDIRECTS for status in expect)

    def make(user: Any) -> None:
        with user.client.request(
            method, path, name=name, headers=dict(headers), allow_redirects=follow, catch_response=True, **content
        ) as response:
            status = response.status_code
            if not status:
                response.failure(f"no answer: {response.error!r}")
            elif status in expect or (not expect and status < _BAD):
                response.success()
            else:
                response.failure(f"status {status}")

    make.__name__ = re.sub(r"\W+", "_", name)
    return make


def filled(text: str) -> str:
    """
    A text with variables of the environment put in.

    Raises:
        Unfit: there is no such variable.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] is None:
            return "${"
        if match[1] not in os.environ:
            raise Unfit(f"there is no variable {match[1]} in the environment of the task")
        return os.environ[match[1]]

    return _PLACEHOLDER.sub(value, text)


def _filled_in(value: Any) -> Any:
    match value:
        case str():
            return filled(value)
        case list():
            return [_filled_in(each) for each in value]
        case dict():
            return {key: _filled_in(each) for key, each in value.items()}
        case _:
            return value
