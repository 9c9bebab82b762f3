"""A file of checks, read: every problem of it at once, or its steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fleetest.common.limits import MAX_SUITE_BYTES
from fleetest.common.suite.document import DocumentKind, read_document
from fleetest.common.suite.problems import Findings, Place, closest
from fleetest.common.suite.tree import Node, plain
from fleetest.common.suite.validation import validated
from fleetest.worker.checks.documents import GraphqlDocuments
from fleetest.worker.checks.files import Files
from fleetest.worker.checks.model import METHODS, FileModel, StepModel
from fleetest.worker.checks.placeholders import Missing, Variables, filled, placeholders_in
from fleetest.worker.checks.schemas import JsonSchema

__all__ = ["Scenario", "Surroundings", "read_scenario", "request_line"]

_KIND: Final = DocumentKind(name="file of checks", beginning="Begin with the line `steps:`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """
    What a file of checks does not say itself.

    Args:
        base_url: instead of the file's own; empty: the file's own.
        variables: instead of the file's own of these names.
        env: environment variables.
        secrets: names of environment variables that hold secrets.
        root: of the workspace.
    """

    root: Path
    base_url: str = ""
    variables: Mapping[str, Any]
    env: Mapping[str, str]
    secrets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """
    Steps in their order.

    Args:
        base_url: of the surroundings, else the file's own; may hold placeholders.
        lines: where each step begins, from 1.
        documents: of the steps that ask GraphQL.
        schemas: JSON Schemas by the number of their step: of `expect`, and of `poll.until`.
    """

    model: FileModel
    base_url: str
    lines: tuple[int, ...]
    files: Files
    surroundings: Surroundings
    documents: GraphqlDocuments
    schemas: Mapping[tuple[int, str], JsonSchema]

    @property
    def steps(self) -> list[StepModel]:
        return self.model.steps

    def variables(self) -> Variables:
        """
        Those that are there before the first step.

        Raises:
            Missing: one refers to what is not there.
        """
        given = self.surroundings
        variables = Variables({}, env=given.env)
        for name, value in {**given.variables, **self.model.variables, **given.variables}.items():
            variables.define(name, filled(value, variables))
        return variables


def read_scenario(path: Path, *, source: str, surroundings: Surroundings) -> Scenario:
    """
    Read and check a file; nothing is sent.

    Args:
        source: what the file is called in messages.

    Raises:
        SuiteInvalid: it cannot be used; carries every problem, in file order.
    """
    findings = Findings(source)
    root = read_document(_text(path, findings), findings, _KIND)
    model = validated(FileModel, root, findings)
    _check_names(root, findings)
    _check_placeholders(root, surroundings, findings)
    findings.raise_if_any()
    assert model is not None
    files = Files(directory=path.parent, root=surroundings.root)
    base_url = surroundings.base_url or model.base_url
    _check_urls(root, model, base_url, findings)
    _check_files(root, model, files, findings)
    schemas = dict(_schemas(root, files, findings))
    documents = GraphqlDocuments.read(root, model, files, findings)
    findings.raise_if_any()
    return Scenario(
        model=model,
        base_url=base_url,
        lines=tuple(node.place.line for node in _steps(root)),
        files=files,
        surroundings=surroundings,
        documents=documents,
        schemas=schemas,
    )


def _text(path: Path, findings: Findings) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(4 * MAX_SUITE_BYTES)  # what is longer is refused for its length
    except OSError as error:
        findings.add(Place(), f"it cannot be read: {error.strerror}")
        raise findings.error() from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8", "replace")
        place = Place(line=before.count("\n") + 1, column=len(before) - before.rfind("\n"))
        findings.add(place, "this is not UTF-8", "Save the file as UTF-8 text.")
        raise findings.error() from error


def _steps(root: Node) -> tuple[Node, ...]:
    steps = root.get("steps")
    return steps.items if steps is not None else ()


def _check_names(root: Node, findings: Findings) -> None:
    seen: dict[str, Place] = {}
    for step in _steps(root):
        node = step.get("name")
        if node is None or node.text is None:
            continue
        if node.text in seen:
            hint = f"It stands in line {seen[node.text].line} already."
            findings.add(node.place, f"two steps are called '{node.text[:60]}'", hint)
        elif "::" in node.text:
            findings.add(node.place, "a step's name cannot hold '::'", "pytest parts names by it.")
        seen.setdefault(node.text, node.place)


def _check_placeholders(root: Node, surroundings: Surroundings, findings: Findings) -> None:
    """Whether each name will have a value: variables before captures, captures of earlier steps before later ones."""
    variables = Variables(surroundings.variables, env=surroundings.env)
    own = root.get("variables")
    for name, entry in own.entries.items() if own is not None else ():
        _check_node(entry.value, variables, findings)
        variables.define(name, None)
    for key, entry in root.entries.items():
        if key not in {"variables", "steps", "name", "schema", "secrets"}:
            _check_node(entry.value, variables, findings)
    for step in _steps(root):
        _check_step(step, variables, findings)
        for name in captures.entries if (captures := step.get("capture")) is not None else ():
            variables.define(name, None)


def _check_step(step: Node, variables: Variables, findings: Findings) -> None:
    for key, entry in step.entries.items():
        if key in {"graphql", "subscribe"}:
            for part in ("variables", "payload"):
                if (values := entry.value.get(part)) is not None:
                    _check_node(values, variables, findings)
        elif key != "name":
            _check_node(entry.value, variables, findings)


def _check_node(node: Node, variables: Variables, findings: Findings) -> None:
    match node.content:
        case str():
            _check_text(node.content, node.place, variables, findings)
        case tuple():
            for item in node.content:
                _check_node(item, variables, findings)
        case dict():
            for key, entry in node.content.items():
                _check_text(key, entry.key, variables, findings)
                if key != "schema":
                    _check_node(entry.value, variables, findings)
        case _:
            return


def _check_text(text: str, place: Place, variables: Variables, findings: Findings) -> None:
    for name in placeholders_in(text):
        try:
            variables.value(name)
        except Missing as error:
            findings.add(place, str(error), error.hint or closest(name, variables.names))


def _check_urls(root: Node, model: FileModel, base_url: str, findings: Findings) -> None:
    if base_url:
        return
    hint = "Write `base_url:` in the file, or give the task one."
    for node, step in zip(_steps(root), model.steps, strict=True):
        url = model.endpoint if step.operation is not None else request_line(step)[1]
        if not url.startswith(("http://", "https://", "ws://", "wss://", "${")):
            findings.add(node.place, f"step '{step.name}' has no address: '{url[:60]}' is relative", hint)


def request_line(step: StepModel) -> tuple[str, str]:
    """Method and URL of a step that is no GraphQL operation, as written."""
    if step.request is not None:
        return step.request.method.upper(), step.request.url
    method = next(name for name in METHODS if getattr(step, name) is not None)
    return method.upper(), getattr(step, method)


def _check_files(root: Node, model: FileModel, files: Files, findings: Findings) -> None:
    named = [(root, "verify")] if isinstance(model.verify, str) else []
    for node in _steps(root):
        named.append((node, "body_file"))
        multipart = node.get("multipart")
        named += [(entry.value, "file") for entry in multipart.entries.values()] if multipart is not None else []
    for node, key in named:
        value = node.get(key)
        if value is not None and isinstance(value.content, str) and not any(placeholders_in(value.content)):
            try:
                files.find(value.content)
            except ValueError as error:
                findings.add(value.place, str(error))


def _schemas(root: Node, files: Files, findings: Findings) -> Iterator[tuple[tuple[int, str], JsonSchema]]:
    for number, node in enumerate(_steps(root)):
        places = {"expect": node.get("expect", "schema"), "until": node.get("poll", "until", "schema")}
        for where, schema in places.items():
            if schema is None:
                continue
            try:
                yield (number, where), JsonSchema(plain(schema), files)
            except ValueError as error:
                findings.add(schema.place, f"schema: {error}")
