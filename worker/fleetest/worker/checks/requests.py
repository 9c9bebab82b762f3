"""Makes the request of a step, its placeholders filled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from fleetest.worker.checks.files import Files
from fleetest.worker.checks.json_values import text_of
from fleetest.worker.checks.model import GraphqlModel, PartModel, StepModel
from fleetest.worker.checks.placeholders import Variables, filled
from fleetest.worker.checks.scenario import Scenario, request_line

__all__ = ["Credentials", "build_request", "joined", "operation_of"]

_GRAPHQL_ACCEPT: Final = "application/graphql-response+json, application/json;q=0.9"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What says who sends a request."""

    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


def joined(base_url: str, url: str) -> str:
    """An address as it is, or a path behind the base URL."""
    if not base_url or url.startswith(("http://", "https://", "ws://", "wss://")):
        return url
    return f"{base_url.rstrip('/')}/{url.lstrip('/')}" if url else base_url


def operation_of(operation: GraphqlModel, text: str, variables: Variables) -> dict[str, Any]:
    """What is sent of a GraphQL operation."""
    message: dict[str, Any] = {"query": text}
    if operation.variables:
        message["variables"] = filled(operation.variables, variables)
    if operation.operation is not None:
        message["operationName"] = operation.operation
    return message


async def build_request(
    client: httpx.AsyncClient, scenario: Scenario, number: int, variables: Variables, credentials: Credentials
) -> httpx.Request:
    """
    The request of a step.

    Raises:
        Missing: a placeholder has no value.
        ValueError, httpx.InvalidURL: it cannot be made.
    """
    step = scenario.steps[number]
    headers = {"content-type": "application/json"} if step.operation is not None or step.has_json else {}
    if step.operation is not None:
        method, url = "POST", scenario.model.endpoint
        content: dict[str, Any] = {
            "content": _json(operation_of(step.operation, scenario.documents.texts[number], variables))
        }
        headers["accept"] = _GRAPHQL_ACCEPT
    else:
        method, url = request_line(step)
        content = _content(step, variables, scenario.files)
    address = httpx.URL(joined(text_of(filled(scenario.base_url, variables)), text_of(filled(url, variables))))
    if query := [*_pairs(filled(step.query, variables)), *credentials.query.items()]:
        address = address.copy_merge_params(httpx.QueryParams([*address.params.multi_items(), *query]))
    headers |= _texts(filled({**scenario.model.headers, **step.headers}, variables))
    request = client.build_request(method, address, headers={**credentials.headers, **headers}, **content)
    await request.aread()
    return request


def _content(step: StepModel, variables: Variables, files: Files) -> dict[str, Any]:
    if step.has_json:
        return {"content": _json(filled(step.json_, variables))}
    if step.form:
        values = filled(step.form, variables)
        return {"data": {key: _form_value(value) for key, value in values.items()}}
    if step.multipart:
        return {"files": [(name, _part(part, variables, files)) for name, part in step.multipart.items()]}
    if step.body is not None:
        return {"content": text_of(filled(step.body, variables))}
    if step.body_file is not None:
        return {"content": files.content(text_of(filled(step.body_file, variables)))}
    return {}


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _form_value(value: Any) -> str | list[str]:
    return [text_of(each) for each in value] if isinstance(value, list) else text_of(value)


def _part(part: PartModel, variables: Variables, files: Files) -> tuple[str | None, bytes, str | None]:
    if part.file is not None:
        path = files.find(text_of(filled(part.file, variables)))
        content, name = files.content(str(path)), part.filename or path.name
    else:
        content, name = text_of(filled(part.value, variables)).encode(), part.filename or ""
    return name or None, content, part.content_type


def _pairs(query: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, text_of(each))
        for name, value in query.items()
        for each in (value if isinstance(value, list) else [value])
    ]


def _texts(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name: text_of(value) for name, value in headers.items()}
