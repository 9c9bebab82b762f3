"""How a service is reached: by whom, under which name, and in which variables that is told."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from fleetest.common.tasks import Network, Task, variable_prefix

__all__ = ["address_variables", "follows", "host_name", "published_prefix", "seen_from_outside"]

_LONGEST_NAME: Final = 63
"""Of a part of a host name, in characters (RFC 1035, 2.3.4)."""


def host_name(service: str) -> str:
    """Its name in its run's network: `my-shop` for `my_shop`."""
    name = re.sub("[^a-z0-9]", "-", service.lower()).strip("-") or "service"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(service.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST_NAME - len(digest) - 1]}-{digest}"


def published_prefix(service: str) -> str:
    """How the variables begin that tell where others than its neighbours reach a service: `SHOP_PUBLISHED`."""
    return f"{variable_prefix(service)}_PUBLISHED"


def address_variables(prefix: str, host: str, ports: Mapping[str, int]) -> dict[str, str]:
    """
    What is told of a service.

    Args:
        prefix: how all of them begin.
        ports: by name; the first one has an empty name.
    """
    told = {f"{prefix}_HOST": host} if ports else {}
    for name, port in ports.items():
        beginning = f"{prefix}_{name.upper()}" if name else prefix
        told[f"{beginning}_PORT"] = str(port)
        told[f"{beginning}_URL"] = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return told


def seen_from_outside(service: str, told: Mapping[str, str]) -> dict[str, str]:
    """Of what a service tells, what is right for whoever reaches only what it publishes, in the usual variables."""
    inner, outer = f"{variable_prefix(service)}_", f"{published_prefix(service)}_"
    published = {name: value for name, value in told.items() if name.startswith(outer)}
    return published | {inner + name.removeprefix(outer): value for name, value in published.items()}


def follows(task: Task, service: Task) -> bool:
    """Whether a task that needs a service must run on its worker: it does not reach what that publishes, if it does."""
    shut_in = bool(task.image) and task.network is Network.NONE
    return service.service is None or not service.service.published or shut_in
