"""Load tests: generators that run Locust, start together and share one schedule; thresholds are their cases."""

from __future__ import annotations

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from fleetest.common.errors import InvalidRequest
from fleetest.common.kinds.kind import Work
from fleetest.common.load import LIVE_WINDOW, LoadPlan, Threshold, parse_threshold
from fleetest.common.suite.fields import BY_VALUE, Duration, Line, RelativePath, Text, as_list, describe, refused
from fleetest.common.suite.problems import Fault
from fleetest.common.suite.section import Section
from fleetest.common.tasks import OnLost, RunnerType

__all__ = ["OnLostGenerator", "Performance", "PerformanceKeys", "RequestModel", "StageModel"]

_MOST_GENERATORS: Final = 500
_MOST_TARGET: Final = 1_000_000
_LONGEST_SCHEDULE: Final = timedelta(days=7)
_MOST_BYTES: Final = 100_000  # an argument of a program may have 131,072
_STATUSES: Final = range(100, 600)


class OnLostGenerator(StrEnum):
    """What becomes of a measurement, one of whose generators was lost."""

    EXCLUDE = "exclude"
    INVALID = "invalid"
    RESTART = "restart"


_GANGS: Final = {
    OnLostGenerator.EXCLUDE: OnLost.CONTINUE,
    OnLostGenerator.INVALID: OnLost.END,
    OnLostGenerator.RESTART: OnLost.ABORT,
}


def _statuses(value: object) -> object:
    statuses = as_list(value)
    if not isinstance(statuses, list) or not all(
        isinstance(each, int) and not isinstance(each, bool) and each in _STATUSES for each in statuses
    ):
        raise refused(Fault(message=f"must be a status of HTTP, or a list of them, not {describe(value)}"))
    return statuses


class RequestModel(Section):
    """One request of a scenario."""

    path: Text = Field(
        description="Behind `host`, or a whole URL; `${env.NAME}` in it is a variable of the environment."
    )
    method: Annotated[Line, Field(pattern=r"^[A-Z]{1,20}$")] = Field("GET", description="Of HTTP, in capitals.")
    name: Line = Field("", description="What it is measured as; else the method and the path, as in `GET /books`.")
    headers: dict[Line, Text] = Field({}, description="Sent with it; `${env.NAME}` as in `path`.")
    body: Text = Field("", description="Sent as it is; `${env.NAME}` as in `path`.")
    json_: Any = Field(None, alias="json", description="Sent as JSON, instead of `body`; `${env.NAME}` in its texts.")
    expect: Annotated[
        list[int], BeforeValidator(_statuses, json_schema_input_type=list[int] | int), Field(min_length=1)
    ] = Field([], description="The status that is no error, or several; else any below 400.")
    weight: int = Field(1, ge=1, le=10_000, description="How often it is made, compared with the others.")

    @model_validator(mode="after")
    def _one_body(self) -> RequestModel:
        if self.body and self.json_ is not None:
            raise refused(Fault(message="a request has `body` or `json`, not both", hint="Take one out."))
        return self


class StageModel(Section):
    """A part of the schedule: from the target before to its own, evenly."""

    duration: Duration = Field(description="How long it takes: `30s`, `5m`.")
    target: float = Field(
        ge=0, le=_MOST_TARGET, allow_inf_nan=False, description="At its end: arrivals in a second, or users."
    )

    @model_validator(mode="after")
    def _ends(self) -> StageModel:
        if self.duration is None:
            raise refused(Fault(message="duration cannot be `none`", hint="Each stage has an end.", path=("duration",)))
        return self


def _think_time(value: object) -> object:
    times = as_list(value)
    if not isinstance(times, list) or len(times) not in {1, 2}:
        raise refused(
            Fault(message="must be a time, or a list of the shortest and the longest", hint="As in [1s, 3s].")
        )
    return times


def _thresholds(value: object) -> object:
    """Of texts, and mappings of a request's name to such texts, the thresholds."""
    items = [value] if isinstance(value, dict) else as_list(value)
    if not isinstance(items, list):
        raise refused(
            Fault(message=f"must be a list of thresholds, not {describe(items)}", hint="As in [p95 < 300ms].")
        )
    found: list[Threshold] = []
    faults: list[Fault] = []
    for index, item in enumerate(items):
        for request, texts in item.items() if isinstance(item, dict) else [("", item)]:
            for text in texts if isinstance(texts, list) else [texts]:
                path = (index, request) if request else (index,)
                _read_threshold(text, str(request), path, found, faults)
    if faults:
        raise refused(*faults)
    return found


def _read_threshold(
    text: object, request: str, path: tuple[str | int, ...], found: list[Threshold], faults: list[Fault]
) -> None:
    if not isinstance(text, str):
        message = f"must be a threshold, not {describe(text)}"
        faults.append(Fault(message=message, hint="As in `p95 < 300ms`.", path=path))
        return
    try:
        threshold = parse_threshold(text, request=request)
    except InvalidRequest as error:
        faults.append(Fault(message=error.message, hint=error.hint, path=path))
        return
    if threshold in found:
        faults.append(Fault(message=f"'{threshold}' is there twice", hint="Take one out.", path=path))
    found.append(threshold)


_ThresholdTexts = dict[str, str | list[str]]
_Thresholds = Annotated[
    list[Any],
    BeforeValidator(_thresholds, json_schema_input_type=list[str | _ThresholdTexts] | _ThresholdTexts | str),
]


class PerformanceKeys(Section):
    """Keys of a load test."""

    locustfile: RelativePath = Field("", description="A locustfile, whose users make the load.")
    classes: list[Line] = Field([], description="Which of its classes of users; else all.")
    requests: list[RequestModel] = Field([], max_length=500, description="Instead of `locustfile`: what is requested.")
    host: Text = Field(
        "", description="What paths are behind: `http://shop.test`; `${env.NAME}` is a variable of the environment."
    )
    think_time: Annotated[list[Duration], BeforeValidator(_think_time, json_schema_input_type=str | list[str])] = Field(
        [], description="In the closed model, between two requests of a user: a time, or the shortest and longest."
    )
    model: Literal["open", "closed"] = Field(
        "open", description="`open`: so many arrivals in a second, however slow the answers; `closed`: so many users."
    )
    stages: list[StageModel] = Field(
        min_length=1, max_length=500, description="The schedule, for all generators together."
    )
    start: Annotated[float, Field(ge=0, le=_MOST_TARGET, allow_inf_nan=False)] | None = Field(
        None, description="Where the first stage begins; else at its own target."
    )
    generators: int = Field(1, ge=1, le=_MOST_GENERATORS, description="Over how many slots the load is spread.")
    thresholds: _Thresholds = Field(
        [], description="What must hold, a case each: `p95 < 300ms`, or by request `{GET /books: p95 < 200ms}`."
    )
    abort: _Thresholds = Field([], description="When one of these does not hold any more, all generators are stopped.")
    abort_window: Duration = Field(LIVE_WINDOW, description="Over so long `abort` is judged, again every second.")
    on_lost_generator: Annotated[OnLostGenerator, BY_VALUE] = Field(
        OnLostGenerator.INVALID,
        description="`invalid`: the task ends as errored; `exclude`: what is measured without it does not count; "
        "`restart`: all begin again.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> PerformanceKeys:
        faults = [*_wrong_schedule(self), *_wrong_scenario(self)]
        if faults:
            raise refused(*faults)
        return self


def _wrong_schedule(keys: PerformanceKeys) -> list[Fault]:
    faults = []
    if _length(keys) > _LONGEST_SCHEDULE:
        faults.append(Fault(message="all together are longer than 7 days", path=("stages",)))
    if not any(stage.target for stage in keys.stages) and not keys.start:
        hint = "Give a stage a target above 0."
        faults.append(Fault(message="there is never any load", hint=hint, path=("stages",)))
    if keys.model == "closed" and any(stage.target % 1 for stage in keys.stages):
        faults.append(Fault(message="a target of users is a whole number", path=("stages",)))
    if keys.abort_window is None or not timedelta(seconds=1) <= keys.abort_window <= timedelta(minutes=10):
        faults.append(Fault(message="must be between 1s and 10m", path=("abort_window",)))
    return faults


def _length(keys: PerformanceKeys) -> timedelta:
    return sum((stage.duration or timedelta() for stage in keys.stages), timedelta())


def _wrong_scenario(keys: PerformanceKeys) -> list[Fault]:
    faults = []
    if keys.requests and not keys.host and any(not _is_url(each.path) for each in keys.requests):
        hint = "As in `host: http://127.0.0.1:8000`, or `host: ${env.SHOP_URL}` for a service `shop`."
        faults.append(Fault(message="paths need a `host` before them", hint=hint, path=("requests",)))
    if keys.host and not _is_url(keys.host):
        hint = "It begins with http:// or https://."
        faults.append(Fault(message=f"'{keys.host[:60]}' is not an address", hint=hint, path=("host",)))
    if keys.classes and not keys.locustfile:
        faults.append(Fault(message="only a locustfile has classes", hint="Take it out.", path=("classes",)))
    if keys.think_time and (keys.model == "open" or keys.locustfile):
        what = "in the open model nobody waits" if keys.model == "open" else "a locustfile has its own `wait_time`"
        faults.append(Fault(message=what, hint="Take it out.", path=("think_time",)))
    if None in keys.think_time or keys.think_time != sorted(time for time in keys.think_time if time is not None):
        faults.append(Fault(message="the shortest comes before the longest", path=("think_time",)))
    names = {_name_of(each) for each in keys.requests}
    for key, thresholds in (("thresholds", keys.thresholds), ("abort", keys.abort)):
        for each in thresholds if keys.requests else ():
            if each.request and each.request not in names:
                known = ", ".join(sorted(names)[:10])
                faults.append(
                    Fault(
                        message=f"no request is named '{each.request[:60]}'", hint=f"There are: {known}.", path=(key,)
                    )
                )
    if len(_scenario(keys)) > _MOST_BYTES:
        hint = "Let a locustfile read it from a file."
        faults.append(Fault(message="this is too much for a suite", hint=hint, path=("requests",)))
    return faults


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://", "${env."))


def _name_of(request: RequestModel) -> str:
    """What it is measured as."""
    return request.name or f"{request.method} {request.path}"


def _scenario(keys: PerformanceKeys) -> str:
    """What generators are told; `fleetest.worker.load` reads it."""
    return json.dumps(
        {
            "model": keys.model,
            "start": keys.stages[0].target if keys.start is None else keys.start,
            "stages": [[(each.duration or timedelta()).total_seconds(), each.target] for each in keys.stages],
            "host": keys.host,
            "locustfile": keys.locustfile,
            "classes": keys.classes,
            "think_time": [time.total_seconds() for time in keys.think_time if time is not None],
            "requests": [
                {
                    "name": _name_of(each),
                    "method": each.method,
                    "path": each.path,
                    "headers": each.headers,
                    "body": each.body,
                    "json": each.json_,
                    "expect": each.expect,
                    "weight": each.weight,
                }
                for each in keys.requests
            ],
        },
        separators=(",", ":"),
    )


class Performance:
    """Fulfils `Kind` for load tests."""

    name = "performance"
    keys = PerformanceKeys
    one_of: tuple[str, ...] = ("locustfile", "requests")
    example = "requests: [{path: /}]"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: PerformanceKeys) -> Work:
        return Work(
            runner=RunnerType.LOAD,
            command=(_scenario(keys),),
            load=LoadPlan(
                length=_length(keys),
                thresholds=tuple(keys.thresholds),
                abort=tuple(keys.abort),
                abort_window=keys.abort_window or LIVE_WINDOW,
            ),
            shards=keys.generators,
            gang=_GANGS[keys.on_lost_generator],
        )
