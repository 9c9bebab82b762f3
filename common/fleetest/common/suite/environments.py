"""
Where a suite is run: dev, staging, prod. What there is of services that tests talk to, and how much runs may take.

An environment becomes part of the tasks: variables, secrets under other names, shares of a pool. Nothing else knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema

from fleetest.common.suite.fields import BY_VALUE, EnvName, Line, Size, Text, refused
from fleetest.common.suite.problems import Fault, Findings, Place, closest
from fleetest.common.suite.section import Section
from fleetest.common.suite.tree import Entry, Node, WrittenFloat, mapping, scalar
from fleetest.common.suite.validation import validated
from fleetest.common.tasks import Access, Task, Use

__all__ = [
    "Environment",
    "EnvironmentModel",
    "EnvironmentType",
    "LimitsModel",
    "ServiceModel",
    "choose_environment",
    "in_environment",
]

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class EnvironmentType(StrEnum):
    """What an environment is for."""

    DEV = "dev"
    STAGING = "staging"
    PROD = "prod"


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        hint = "Letters, digits and _ - make one; it becomes part of the names of variables."
        raise refused(Fault(message=f"'{text[:60]}' is not a name here", hint=hint))
    return text


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        known = parts.hostname and (parts.port is not None or parts.scheme in _DEFAULT_PORTS)
    except ValueError:
        known = False
    if not known:
        hint = "As in https://shop.example.com, or with a port: postgres://db.example.com:5432."
        raise refused(Fault(message=f"'{text[:60]}' is not the URL of a service", hint=hint))
    if parts.username or parts.password:
        hint = "Name a secret that holds it: `credentials: {password: SHOP_PASSWORD}`."
        raise refused(Fault(message="a URL in a suite must not hold a password", hint=hint))
    return text


_Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]


class ServiceModel(Section):
    """A service that runs already. It takes the place of the suite's own service task of that name."""

    url: Annotated[Line, AfterValidator(_url)] = Field(description="Where tests find it.")
    credentials: dict[_Name, EnvName] = Field(
        {}, description="What tests need to use it: for each a word, and the name of the secret that holds it."
    )


class LimitsModel(Section):
    """The most that all runs of the project may take of the cluster at a time, in this environment."""

    cpu: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = Field(None, description="Cores.")
    memory: Size | None = Field(None, description="Memory: `64GiB`.")
    storage: Size | None = Field(None, description="Disk: `1TiB`.")


class EnvironmentModel(Section):
    """A place where the suite can be run."""

    type: Annotated[EnvironmentType, BY_VALUE] | None = Field(
        None, description="What it is for; when absent, its name says so."
    )
    services: dict[_Name, ServiceModel] = Field({}, description="Services that are there, by name.")
    resources: LimitsModel = Field(default_factory=LimitsModel, description="The most that runs may take at a time.")
    variables: dict[EnvName, Text] = Field({}, description="Further environment variables.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """
    The chosen one.

    Args:
        services: names of those that run already.
        variables: for every task.
        credentials: variables that are filled from secrets, by the name of the secret.
        pools: how much there is of what tasks take, in the units of `_amounts`.
    """

    name: str
    type: EnvironmentType
    services: frozenset[str] = frozenset()
    variables: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict)
    pools: Mapping[str, int] = field(default_factory=dict)


def choose_environment(root: Node, name: str, settings: Mapping[str, str], findings: Findings) -> Environment | None:
    """
    The environment that a suite is to run in; `None` without one.

    Args:
        root: of the suite.
        name: which; empty means the suite's own choice.
        settings: what is to be other than it says there, by the keys that lead to it: `services.shop.url`.
    """
    chosen = root.get("environment")
    place = chosen.place if chosen and not name else Place()
    name = name or (chosen.text if chosen and chosen.text else "")
    known = root.get("environments")
    if not name:
        if settings:
            choose = "Choose one with --env, or with `environment` in the suite."
            findings.add(Place(), f"'{next(iter(settings))}' is set for no environment", choose)
        return None
    node = known.get(name) if known else None
    if node is None:
        names = known.entries if known else {}
        hint = closest(name, names) if names else "The suite has no `environments`."
        findings.add(place, f"there is no environment '{name[:60]}'", hint)
        return None
    for path, text in settings.items():
        node = _with(node, path.split("."), scalar(Place(), _as_written(text)))
    model = validated(EnvironmentModel, node, findings, subject=name)
    return _environment(name, model, node, findings) if model else None


def _with(node: Node, path: Sequence[str], value: Node) -> Node:
    """The same tree with a value elsewhere in it, or new."""
    if not path:
        return value
    key, *rest = path
    below = node.get(key) or mapping(Place(), {})
    return mapping(node.place, {**node.entries, key: Entry(key=Place(), value=_with(below, rest, value))})


def _as_written(text: str) -> str | WrittenFloat:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        return text
    number = WrittenFloat(text)
    number.text = text
    return number


def _environment(name: str, model: EnvironmentModel, node: Node, findings: Findings) -> Environment | None:
    kind = model.type or next((kind for kind in EnvironmentType if kind == name), None)
    if kind is None:
        kinds = ", ".join(EnvironmentType)
        findings.add(
            node.place, f"{name}: key 'type' is missing", f"One of {kinds}; a name that is one of them says it."
        )
        return None
    variables = {"FLEETEST_ENVIRONMENT": name, "FLEETEST_ENVIRONMENT_TYPE": kind.value, **model.variables}
    credentials: dict[str, str] = {}
    for service, written in model.services.items():
        variables |= _variables_of(service, written.url)
        credentials |= {f"{_upper(service)}_{_upper(word)}": secret for word, secret in written.credentials.items()}
    for clash in sorted(variables.keys() & credentials.keys()):
        findings.add(node.place, f"{name}: {clash} would be a variable and a secret", "Call one of them otherwise.")
    return Environment(
        name=name,
        type=kind,
        services=frozenset(model.services),
        variables=variables,
        credentials=credentials,
        pools={what: size for what, size in _sizes(model.resources) if size},
    )


def _variables_of(service: str, url: str) -> Mapping[str, str]:
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    prefix = _upper(service)
    return {f"{prefix}_URL": url, f"{prefix}_HOST": parts.hostname or "", f"{prefix}_PORT": str(port)}


def _upper(word: str) -> str:
    return word.upper().replace("-", "_")


def _sizes(limits: LimitsModel) -> Iterator[tuple[str, int]]:
    """In thousandths of a core, and in MiB: amounts of a pool are whole numbers."""
    yield "cpu", round((limits.cpu or 0) * 1000)
    yield "memory", (limits.memory or 0) >> 20
    yield "storage", (limits.storage or 0) >> 20


def _amounts(task: Task) -> Mapping[str, int]:
    return {
        "cpu": task.resources.cpu_millis,
        "memory": -(-task.resources.memory_bytes >> 20),
        "storage": -(-task.resources.disk_bytes >> 20),
    }


def in_environment(
    tasks: Sequence[Task], environment: Environment, places: Mapping[str, Place], findings: Findings
) -> tuple[Task, ...]:
    """
    The tasks as they are run there: without the services that are there already.

    Args:
        places: of the tasks in the file.
    """
    stand_ins = {task.name for task in tasks if task.type == "service" and task.name in environment.services}
    placed = []
    for task in tasks:
        if task.name in stand_ins:
            continue
        for what, amount in _amounts(task).items():
            if amount > environment.pools.get(what, amount):
                hint = f"Let it require less {what}, or allow more under `environments`."
                findings.add(places[task.name], f"{task.name} needs more {what} than {environment.name} allows", hint)
        placed.append(
            replace(
                task,
                env={**task.env, **environment.variables},
                credentials={**task.credentials, **environment.credentials},
                needs=tuple(need for need in task.needs if need.task not in stand_ins),
                uses=(*task.uses, *_uses(task, environment)),
            )
        )
    return tuple(placed)


def _uses(task: Task, environment: Environment) -> Iterator[Use]:
    for what, size in environment.pools.items():
        if amount := _amounts(task)[what]:
            resource = f"environment/{environment.name}/{what}"
            yield Use(resource=resource, access=Access.COUNTED, amount=amount, size=size)
