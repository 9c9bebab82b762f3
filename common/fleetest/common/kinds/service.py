"""A service: no test, but the system under test, or a part of it, which runs while other tasks need it."""

from __future__ import annotations

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
    if value == "auto":
        return 0
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_PORT:
        return value
    raise refused(Fault(message=f"must be 'auto' or a number from 1 to {_MAX_PORT}"))


class ServiceKeys(Section):
    """Keys of a service."""

    command: Annotated[list[Text], Field(min_length=1)] = Field([], description="A program and its arguments.")
    run: Text = Field("", description="Instead of `command`: text for `/bin/sh`.")
    port: Annotated[
        int,
        BeforeValidator(_port),
        WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": _MAX_PORT}]}),
    ] = Field(0, description="On which it listens; `auto`: one that is free. The service finds it in `PORT`.")
    ready: ReadyModel = Field(
        default_factory=lambda: ReadyModel(tcp=True), description="How it is seen to be ready; else its port tells."
    )
    grace: Duration = Field(_SERVICE.grace, description="Between asking it to end and ending it.")


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
            service=Service(ready=probe, port=keys.port, grace=keys.grace or timedelta()),
            cpu=0,
        )
