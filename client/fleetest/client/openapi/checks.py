"""Files of REST checks from an OpenAPI document: one for each tag, one step for each operation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from fleetest.client.openapi.document import Document, Operation
from fleetest.client.openapi.samples import sample_of_parameter

__all__ = ["checks_of", "suite_of"]

_JSON: Final = re.compile(r"application/(json|[^;]+\+json)(;.*)?")
_NOT_IN_A_NAME: Final = re.compile(r"[^a-z0-9_-]+")
_NOT_IN_A_VARIABLE: Final = re.compile(r"[^A-Za-z0-9_-]")
_NOT_IN_A_LINE: Final = re.compile(r"[\x00-\x1f\x7f]+")
_TO_BE_SET: Final = ":-change-me"


def checks_of(document: Document, *, location: str) -> dict[str, str]:
    """
    The files by name: `books.rest.yaml`.

    Args:
        location: of the document, as seen from the files; where schemas are looked up.
    """
    by_tag: dict[str, list[Operation]] = {}
    for operation in document.operations():
        by_tag.setdefault(_tag(operation), []).append(operation)
    return {
        f"{tag}.rest.yaml": _written(_file(tag, operations, document, location)) for tag, operations in by_tag.items()
    }


def suite_of(document: Document, *, directory: str) -> str:
    """The suite that runs the files of a directory."""
    title = _line(str(document.mapping(document.content.get("info")).get("title") or "api"))
    task = {"type": "rest", "files": f"{directory}/*.rest.yaml", "base_url": _base_url(document)}
    return _dumped({"version": 1, "name": title[:200], "tasks": {"api": task}})


def _written(file: Mapping[str, Any]) -> str:
    """With a line between steps."""
    head = {key: value for key, value in file.items() if key != "steps"}
    steps = [_dumped([step]) for step in file["steps"]]
    return _dumped(head) + "steps:\n" + "\n".join(steps)


def _dumped(value: Any) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    return text


def _file(tag: str, operations: list[Operation], document: Document, location: str) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    names: dict[str, int] = {}
    steps = [_step(operation, document, location, variables) for operation in operations]
    for step in steps:
        names[step["name"]] = count = names.get(step["name"], 0) + 1
        step["name"] += f" #{count}" if count > 1 else ""
    auth = _auth(document.content.get("security"), document)
    return {
        "name": tag,
        "base_url": _base_url(document),
        **({"auth": auth} if auth is not None else {}),
        **({"variables": variables} if variables else {}),
        "steps": steps,
    }


def _step(operation: Operation, document: Document, location: str, variables: dict[str, Any]) -> dict[str, Any]:
    fields = operation.fields
    name = _line(str(fields.get("operationId") or fields.get("summary") or f"{operation.method} {operation.path}"))
    step: dict[str, Any] = {"name": name.replace("::", ":")[:150]}
    if operation.method == "trace":
        step["request"] = {"method": "TRACE", "url": _url(operation, document, variables)}
    else:
        step[operation.method] = _url(operation, document, variables)
    for place, key in (("query", "query"), ("header", "headers")):
        values = {
            name: _as_it_is(sample_of_parameter(parameter, document))
            for (where, name), parameter in operation.parameters.items()
            if where == place and parameter.get("required") is True
        }
        if values:
            step[key] = values if key == "query" else {name: _header(value) for name, value in values.items()}
    if "security" in fields:
        step["auth"] = _auth(fields["security"], document) or "none"
    step |= _body(document.mapping(fields.get("requestBody")), document)
    step["expect"] = _expected(operation, document, location)
    return step


def _url(operation: Operation, document: Document, variables: dict[str, Any]) -> str:
    """Parameters of the path become variables of the file."""

    def variable(match: re.Match[str]) -> str:
        parameter = operation.parameters.get(("path", match[1]), {})
        name = _NOT_IN_A_VARIABLE.sub("_", match[1])
        name = name if name[:1].isalpha() else f"p_{name}"
        variables.setdefault(name, _as_it_is(sample_of_parameter(parameter, document)))
        return f"${{{name}}}"

    return re.sub(r"\{([^{}]+)\}", variable, operation.path)


def _body(body: Mapping[str, Any], document: Document) -> dict[str, Any]:
    for kind, media in document.mapping(body.get("content")).items():
        fields = document.mapping(media)
        value = _as_it_is(sample_of_parameter(fields, document))
        if _JSON.fullmatch(kind):
            return {"json": value}
        if kind == "application/x-www-form-urlencoded" and isinstance(value, dict):
            return {"form": value}
        if kind == "multipart/form-data" and isinstance(value, dict):
            return {"multipart": {name: _header(each) for name, each in value.items()}}
    return {}


def _expected(operation: Operation, document: Document, location: str) -> dict[str, Any]:
    """The first success that is documented, and its schema."""
    responses = document.mapping(operation.fields.get("responses"))
    status = next((each for each in responses if re.fullmatch(r"2(\d\d|XX)", each.upper())), None)
    if status is None:
        return {"status": "2xx"}
    pointer = f"/paths/{_escaped(operation.path)}/{operation.method}/responses/{_escaped(status)}"
    response, pointer = document.resolved(responses[status], pointer)
    expected: dict[str, Any] = {"status": int(status) if status.isdecimal() else "2xx"}
    for kind, media in document.mapping(document.mapping(response).get("content")).items():
        if _JSON.fullmatch(kind) and "schema" in document.mapping(media):
            expected["schema"] = f"{location}#{pointer}/content/{_escaped(kind)}/schema"
            break
    return expected


def _auth(security: Any, document: Document) -> dict[str, Any] | None:
    """The first way that can be written down; its secrets come from environment variables."""
    schemes = document.mapping(document.mapping(document.content.get("components")).get("securitySchemes"))
    for requirement in security if isinstance(security, list) else []:
        for name in document.mapping(requirement):
            scheme = document.mapping(schemes.get(name))
            way = next(_ways(scheme, document), None)
            if way is not None:
                return way
    return None


def _ways(scheme: Mapping[str, Any], document: Document) -> Iterator[dict[str, Any]]:
    kind, where = scheme.get("type"), scheme.get("in")
    if kind == "http" and str(scheme.get("scheme")).lower() == "bearer":
        yield {"bearer": f"${{env.API_TOKEN{_TO_BE_SET}}}"}
    if kind == "http" and str(scheme.get("scheme")).lower() == "basic":
        yield {
            "basic": {
                "username": f"${{env.API_USERNAME{_TO_BE_SET}}}",
                "password": f"${{env.API_PASSWORD{_TO_BE_SET}}}",
            }
        }
    if kind == "apiKey" and where in {"header", "query"}:
        yield {"api_key": {str(where): str(scheme.get("name")), "value": f"${{env.API_KEY{_TO_BE_SET}}}"}}
    flow = document.mapping(document.mapping(scheme.get("flows")).get("clientCredentials"))
    if kind == "oauth2" and "tokenUrl" in flow:
        yield {
            "oauth2": {
                "token_url": str(flow["tokenUrl"]),
                "client_id": f"${{env.CLIENT_ID{_TO_BE_SET}}}",
                "client_secret": f"${{env.CLIENT_SECRET{_TO_BE_SET}}}",
            }
        }
    if kind in {"oauth2", "openIdConnect"}:
        yield {"bearer": f"${{env.API_TOKEN{_TO_BE_SET}}}"}


def _base_url(document: Document) -> str:
    servers = document.content.get("servers")
    server = document.mapping(servers[0]) if isinstance(servers, list) and servers else {}
    url = str(server.get("url") or "/")
    for name, variable in document.mapping(server.get("variables")).items():
        url = url.replace(f"{{{name}}}", str(document.mapping(variable).get("default", "")))
    return url if url.startswith(("http://", "https://")) else f"http://localhost:8000{url}".rstrip("/")


def _tag(operation: Operation) -> str:
    tags = operation.fields.get("tags")
    word = str(tags[0]) if isinstance(tags, list) and tags else operation.path.strip("/").partition("/")[0]
    return _NOT_IN_A_NAME.sub("-", word.lower()).strip("-")[:60] or "api"


def _as_it_is(value: Any) -> Any:
    """Braces in an example are no placeholder."""
    match value:
        case str():
            return value.replace("${", "$${")
        case list():
            return [_as_it_is(each) for each in value]
        case dict():
            return {str(key): _as_it_is(each) for key, each in value.items()}
        case _:
            return value


def _header(value: Any) -> str:
    return _line(value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n")[0])


def _line(text: str) -> str:
    return " ".join(_NOT_IN_A_LINE.sub(" ", text).split()) or "api"


def _escaped(key: str) -> str:
    """A key in a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")
