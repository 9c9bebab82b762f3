"""A service: no test, but the system under test, or a part of it, which runs while other tasks need it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from fleetest.common.kinds.kind import Work
from fleetest.common.suite.fields import Duration, Text, refused
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.section import Section
from fleetest.common.tasks import Probe, RunnerType, Service

__all__ = ["ReadyModel", "ServiceKeys", "ServiceKind"]

_MAX_PORT: Final = 65535
_AUTO: Final = "auto"
_FIRST: Final = "port"
"""What the first port is called among others."""
_TAKEN: Final = frozenset({_FIRST, "published"})
_PORT_NAME: Final = r"^[a-z][a-z0-9_]{0,29}$"
_PORT_SCHEMA: Final = {"anyOf": [{"const": _AUTO}, {"type": "integer", "minimum": 1, "maximum": _MAX_PORT}]}
_PROBE: Final = Probe()
_SERVICE: Final = Service(ready=_PROBE)


class ReadyModel(Section):
    """How the service is seen to be ready: exactly one of `http`, `tcp` and `command`."""

    http: Annotated[Text, Field(pattern="^(/.*)?$")] = Field("", description="A path that it answers: `/health`.")
    status: int = Field(_PROBE.status, ge=100, le=599, description="The status of that answer.")
    tcp: bool = Field(default=False, description="That its port takes a connection is enough.")
    command: Text = Field("", description="Text for `/bin/sh`, run beside the service; ready when it ends with 0.")
    interval: Duration = Field(_PROBE.interval, description="Between two looks.")
    timeout: Duration = Field(_PROBE.timeout, description="From its start until it must be ready.")

    @model_validator(mode="after")
    def _one_way(self) -> ReadyModel:
        if bool(self.http) + self.tcp + bool(self.command) != 1:
            hint = "As in `ready: {http: /health}`."
            raise refused(Fault(message="needs exactly one of http, tcp and command", hint=hint))
        if self.interval is None or self.timeout is None:
            raise refused(Fault(message="interval and timeout cannot be `none`"))
        return self


def _port(value: object) -> object:
    if value == _AUTO:
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_PORT:
        return value
    raise refused(Fault(message=f"must be 'auto' or a number from 1 to {_MAX_PORT}"))


def _published(value: object) -> object:
    """`auto`, or a number, is of the first port."""
    return value if isinstance(value, dict) else {_FIRST: value}


_Port = Annotated[int, BeforeValidator(_port), WithJsonSchema(_PORT_SCHEMA)]
_PortName = Annotated[str, Field(pattern=_PORT_NAME)]


class ServiceKeys(Section):
    """Keys of a service."""

    command: Annotated[list[Text], Field(min_length=1)] = Field([], description="A program and its arguments.")
    run: Text = Field("", description="Instead of `command`: text for `/bin/sh`.")
    port: _Port = Field(0, description="On which it listens; `auto`: one that is free. The service finds it in `PORT`.")
    ports: dict[_PortName, _Port] = Field(
        {}, description="More ports by name. The service finds that of `metrics` in `METRICS_PORT`."
    )
    publish: Annotated[
        dict[_PortName, _Port],
        BeforeValidator(_published),
        WithJsonSchema({"anyOf": [*_PORT_SCHEMA["anyOf"], {"type": "object", "additionalProperties": _PORT_SCHEMA}]}),
    ] = Field(
        {},
        description="Its port's number on the worker's machine, where others reach it; `auto`: one that is free. "
        "Of several, a mapping of names; that of `port` is `port`.",
    )
    ready: ReadyModel = Field(
        default_factory=lambda: ReadyModel(tcp=True), description="How it is seen to be ready; else its port tells."
    )
    grace: Duration = Field(_SERVICE.grace, description="Between asking it to end and ending it.")

    @model_validator(mode="after")
    def _ports_are_told_apart(self) -> ServiceKeys:
        numbers = [number for number in (self.port, *self.ports.values()) if number]
        published = [number for number in self.publish.values() if number]
        for name in sorted(_TAKEN & self.ports.keys()):
            raise refused(Fault(message=f"'{name}' is no name for one more port", hint="Call it by what it serves."))
        for name in sorted(self.publish.keys() - self.ports.keys() - {_FIRST}):
            hint = f"It has {', '.join([_FIRST, *self.ports])}."
            raise refused(Fault(message=f"publish: it has no port '{name}'", hint=hint))
        if len(set(numbers)) < len(numbers) or len(set(published)) < len(published):
            raise refused(Fault(message="two of its ports have the same number"))
        return self


class ServiceKind:
    """Fulfils `Kind` for services."""

    name = "service"
    keys = ServiceKeys
    one_of = ("command", "run")
    example = "run: python -m shop"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: ServiceKeys) -> Work:
        ready = keys.ready
        probe = Probe(
            http=ready.http,
            status=ready.status,
            tcp=ready.tcp,
            shell=ready.command,
            interval=ready.interval or _PROBE.interval,
            timeout=ready.timeout or _PROBE.timeout,
        )
        return Work(
            runner=RunnerType.SERVICE,
            command=tuple(keys.command),
            shell=keys.run,
            service=Service(
                ready=probe,
                port=keys.port,
                ports=keys.ports,
                publish=_by_own_names(keys.publish),
                grace=keys.grace or timedelta(),
            ),
            cpu=0,
        )


def _by_own_names(publish: Mapping[str, int]) -> dict[str, int]:
    return {"" if name == _FIRST else name: number for name, number in publish.items()}
