"""A file of checks as a pydantic model. Texts may hold placeholders, which are filled when a step runs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from fleetest.common.errors import InvalidRequest
from fleetest.common.suite.durations import parse_duration
from fleetest.common.suite.fields import Duration, Line, Text, as_list, as_text, refused
from fleetest.common.suite.problems import Fault
from fleetest.worker.checks.json_paths import check_path
from fleetest.worker.checks.json_values import text_of
from fleetest.worker.checks.matchers import read_matcher
from fleetest.worker.checks.placeholders import VARIABLE_NAME, placeholders_in

__all__ = [
    "METHODS",
    "ApiKeyModel",
    "AuthModel",
    "BasicModel",
    "CaptureModel",
    "ExpectModel",
    "FileModel",
    "GraphqlModel",
    "OAuth2Model",
    "PartModel",
    "PollModel",
    "RequestModel",
    "StepModel",
    "SubscribeModel",
]

METHODS: Final = ("get", "head", "post", "put", "patch", "delete", "options")
"""Each is a key of a step, for `request` in short."""

_MAX_STEPS: Final = 1000
_STATUS: Final = re.compile(r"[1-5](\d\d|xx)|any")
_METHOD: Final = r"^[A-Za-z!#$%&'*+.^_`|~0-9-]{1,40}$"
_KEY: Final = "[key]"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _status(value: object) -> str:
    text = as_text(value).lower()
    if not _STATUS.fullmatch(text):
        raise refused(Fault(message=f"'{text[:60]}' is not a status", hint="As in 200, 2xx, [200, 404], or any."))
    return text


def _span(value: object) -> timedelta:
    try:
        span = parse_duration(as_text(value))
    except InvalidRequest as error:
        raise refused(Fault(message=error.message, hint=error.hint)) from error
    if not span:
        raise refused(Fault(message="must be longer than nothing"))
    return span


def _variable(name: str) -> str:
    if not re.fullmatch(VARIABLE_NAME, name):
        hint = "A letter or _ first, then letters, digits, _ and -."
        raise refused(Fault(message=f"'{name[:60]}' cannot name a variable", hint=hint))
    return name


def _waits(text: str) -> bool:
    return any(True for _ in placeholders_in(text))


def _path(text: str) -> str:
    if not _waits(text):
        try:
            check_path(text)
        except ValueError as error:
            raise refused(Fault(message=str(error), hint="As in $.items[0].name.")) from error
    return text


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise refused(Fault(message=f"'{text[:60]}' is not a regular expression: {error}")) from error
    return text


_Matcher = Annotated[Any, BeforeValidator(read_matcher)]
_Value = Annotated[str, BeforeValidator(lambda value: text_of(value) if isinstance(value, bool) else as_text(value))]
_Span = Annotated[timedelta, BeforeValidator(_span)]
_Statuses = Annotated[list[Annotated[str, BeforeValidator(_status)]], BeforeValidator(as_list)]
_Path = Annotated[Text, AfterValidator(_path)]
_Variable = Annotated[str, AfterValidator(_variable)]
_Names = Annotated[list[Text], BeforeValidator(as_list)]


class RequestModel(_Section):
    """A request in full, for a method that has no key of its own."""

    method: Annotated[str, Field(pattern=_METHOD)]
    url: Text


class PartModel(_Section):
    """A part of a multipart body: a value, or a file."""

    value: _Value | None = None
    file: Text | None = None
    filename: Text | None = None
    content_type: Text | None = None

    @model_validator(mode="after")
    def _one_content(self) -> PartModel:
        if (self.value is None) == (self.file is None):
            raise refused(Fault(message="a part has either `value` or `file`"))
        return self


class BasicModel(_Section):
    """Credentials of HTTP's basic authentication (RFC 7617)."""

    username: Text
    password: Text


class ApiKeyModel(_Section):
    """A key, in a header or in the query."""

    value: Text
    header: Text | None = None
    query: Text | None = None

    @model_validator(mode="after")
    def _one_place(self) -> ApiKeyModel:
        if (self.header is None) == (self.query is None):
            raise refused(Fault(message="an API key goes into either a `header` or the `query`"))
        return self


class OAuth2Model(_Section):
    """A token by client credentials (RFC 6749, section 4.4), asked for once for each file."""

    token_url: Text
    client_id: Text
    client_secret: Text
    scope: Text = ""
    credentials: Literal["header", "body"] = "header"


class AuthModel(_Section):
    """How a request says who sends it: one of these."""

    bearer: Text | None = None
    basic: BasicModel | None = None
    api_key: ApiKeyModel | None = None
    oauth2: OAuth2Model | None = None

    @model_validator(mode="after")
    def _one_way(self) -> AuthModel:
        if len(self.model_fields_set) != 1:
            raise refused(Fault(message="must be one of `bearer`, `basic`, `api_key` and `oauth2`, or none"))
        return self


def _auth(value: object) -> object:
    return None if value == "none" else value


_Auth = Annotated[AuthModel | None, BeforeValidator(_auth)]


class ExpectModel(_Section):
    """What a response must be like. What is not said does not matter, but a status other than 2xx."""

    status: _Statuses = ["2xx"]
    latency: Duration = None
    headers: dict[str, _Matcher] = {}
    json_: dict[_Path, _Matcher] = Field({}, alias="json")
    text: _Matcher = ()
    schema_: Any = Field(None, alias="schema")
    data: _Matcher = ()
    errors: _Matcher = ()


class PollModel(_Section):
    """The request is sent again until it is answered as expected."""

    interval: _Span = timedelta(seconds=1)
    timeout: _Span = timedelta(seconds=30)
    until: ExpectModel | None = None


class CaptureModel(_Section):
    """A value to take out of a response: one of these."""

    json_: _Path | None = Field(None, alias="json")
    header: Text | None = None
    regex: Annotated[Text, AfterValidator(_expression)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> CaptureModel:
        if len(self.model_fields_set) != 1:
            raise refused(Fault(message="must be one of `json`, `header` and `regex`"))
        return self


def _capture(value: object) -> object:
    """A text is a JSONPath."""
    return {"json": value} if isinstance(value, str) else value


class GraphqlModel(_Section):
    """A GraphQL operation: its document, or a file that holds it."""

    query: Text | None = None
    file: Text | None = None
    variables: dict[str, Any] = {}
    operation: Text | None = None

    @model_validator(mode="after")
    def _one_document(self) -> GraphqlModel:
        if (self.query is None) == (self.file is None):
            raise refused(Fault(message="must have either `query` or `file`"))
        return self


class SubscribeModel(GraphqlModel):
    """A subscription, over WebSocket; its response is the list of the messages that came."""

    messages: Annotated[int, Field(ge=1, le=10_000)] = 1
    payload: dict[str, Any] = {}


def _graphql(value: object) -> object:
    return {"query": value} if isinstance(value, str) else value


_MULTIPART_PART = BeforeValidator(lambda value: value if isinstance(value, dict) else {"value": value})


class StepModel(_Section):
    """One request, and what is expected of its response."""

    name: Line
    get: Text | None = None
    head: Text | None = None
    post: Text | None = None
    put: Text | None = None
    patch: Text | None = None
    delete: Text | None = None
    options: Text | None = None
    request: RequestModel | None = None
    graphql: Annotated[GraphqlModel | None, BeforeValidator(_graphql)] = None
    subscribe: Annotated[SubscribeModel | None, BeforeValidator(_graphql)] = None
    query: dict[str, Any] = {}
    headers: dict[str, _Value] = {}
    auth: _Auth = None
    json_: Any = Field(None, alias="json")
    form: dict[str, Any] = {}
    multipart: dict[str, Annotated[PartModel, _MULTIPART_PART]] = {}
    body: Text | None = None
    body_file: Text | None = None
    timeout: _Span | None = None
    follow_redirects: bool | None = None
    expect: ExpectModel = ExpectModel()
    capture: dict[_Variable, Annotated[CaptureModel, BeforeValidator(_capture)]] = {}
    poll: PollModel | None = None

    @model_validator(mode="after")
    def _one_request(self) -> StepModel:
        given = self.model_fields_set
        requests = given & {*METHODS, "request", "graphql", "subscribe"}
        bodies = sorted(name.rstrip("_") for name in given & {"json_", "form", "multipart", "body", "body_file"})
        if not requests:
            hint = "A step has one of get, post, put, patch, delete, head, options, request, graphql and subscribe."
            raise refused(Fault(message=f"step '{self.name}' has no request", hint=hint))
        if len(requests) > 1:
            one, other = sorted(requests)[:2]
            raise refused(Fault(message=f"a step is one request, not `{one}` and `{other}`", path=(other, _KEY)))
        if len(bodies) > 1:
            raise refused(Fault(message=f"a request has one body, not `{bodies[0]}` and `{bodies[1]}`"))
        speaks_graphql = requests & {"graphql", "subscribe"}
        if bodies and speaks_graphql:
            raise refused(Fault(message="a GraphQL operation is its request's body", path=(bodies[0], _KEY)))
        if not speaks_graphql and (wrong := self.expect.model_fields_set & {"data", "errors"}):
            fault = Fault(
                message=f"`{min(wrong)}` is expected of GraphQL only", hint="Use `json`.", path=("expect", min(wrong))
            )
            raise refused(fault)
        if self.subscribe is not None and self.poll is not None:
            raise refused(Fault(message="a subscription is not polled", path=("poll", _KEY)))
        return self

    @property
    def operation(self) -> GraphqlModel | None:
        """What it asks of GraphQL, if it does."""
        return self.graphql or self.subscribe

    @property
    def has_json(self) -> bool:
        """Whether it sends JSON, `null` included."""
        return "json_" in self.model_fields_set


class FileModel(_Section):
    """A scenario: steps in their order, and what they have in common."""

    name: Line = ""
    base_url: Text = ""
    endpoint: Text = "/graphql"
    schema_: Text = Field("introspection", alias="schema")
    variables: dict[_Variable, Any] = {}
    secrets: _Names = []
    headers: dict[str, _Value] = {}
    auth: _Auth = None
    timeout: _Span = timedelta(seconds=30)
    follow_redirects: bool = False
    verify: bool | Text = True
    steps: Annotated[list[StepModel], Field(min_length=1, max_length=_MAX_STEPS)]
