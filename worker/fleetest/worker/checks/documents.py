"""
GraphQL documents of a file's steps: read, and checked against a schema.

The library is imported by those who ask GraphQL: it takes longer than all else that REST checks need.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fleetest.common.suite.problems import Findings, Place
from fleetest.common.suite.tree import Node
from fleetest.worker.checks.files import Files
from fleetest.worker.checks.model import FileModel, GraphqlModel

if TYPE_CHECKING:
    from graphql import DocumentNode, GraphQLError, GraphQLSchema

__all__ = ["GraphqlDocuments", "introspection_query", "schema_of_introspection"]

_MOST_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphqlDocuments:
    """
    The documents by the number of their step.

    Args:
        schema: what they have been checked against; `None` when it is not there as a file.
        introspect: whether they are to be checked against what the endpoint says of itself.
    """

    texts: Mapping[int, str] = field(default_factory=dict)
    parsed: Mapping[int, DocumentNode] = field(default_factory=dict)
    schema: GraphQLSchema | None = None
    introspect: bool = False

    @classmethod
    def read(cls, root: Node, model: FileModel, files: Files, findings: Findings) -> GraphqlDocuments:
        """What is wrong with them goes to `findings`."""
        if all(step.operation is None for step in model.steps):
            return cls()
        steps = root.get("steps")
        assert steps is not None
        texts: dict[int, str] = {}
        parsed: dict[int, DocumentNode] = {}
        schema = _schema_file(root, model, files, findings)
        for number, (node, step) in enumerate(zip(steps.items, model.steps, strict=True)):
            if step.operation is None:
                continue
            place = (node.get("graphql") or node.get("subscribe") or node).place
            try:
                texts[number] = _text(step.operation, files)
                parsed[number] = _parsed(texts[number])
            except ValueError as error:
                findings.add(place, str(error))
                continue
            _check_operation(parsed[number], step.operation, place, subscribes=step.subscribe is not None, to=findings)
            for problem in _problems(schema, parsed[number]) if schema is not None else ():
                findings.add(place, f"the document does not fit the schema: {problem}")
        introspect = bool(parsed) and model.schema_ == "introspection"
        return cls(texts=texts, parsed=parsed, schema=schema, introspect=introspect)

    def problems(self, number: int, schema: GraphQLSchema) -> Sequence[str]:
        """Where the document of a step does not fit a schema."""
        return _problems(schema, self.parsed[number])


def introspection_query() -> str:
    """What an endpoint is asked for its schema."""
    from graphql import get_introspection_query

    return get_introspection_query(descriptions=False)


def schema_of_introspection(data: Any) -> GraphQLSchema:
    """
    The schema that an endpoint's answer to the introspection query describes.

    Raises:
        ValueError: it describes none.
    """
    from graphql import GraphQLError, build_client_schema

    try:
        return build_client_schema(data)
    except (GraphQLError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"it describes no schema: {str(error)[:200]}") from error


def _schema_file(root: Node, model: FileModel, files: Files, findings: Findings) -> GraphQLSchema | None:
    from graphql import GraphQLError, build_schema

    node = root.get("schema")
    if node is None or model.schema_ in {"introspection", "none"}:
        return None
    try:
        return build_schema(files.text(model.schema_))
    except GraphQLError as error:
        findings.add(node.place, f"{model.schema_[:100]}: {_located(error)}", "The file is GraphQL's schema language.")
    except TypeError as error:
        findings.add(node.place, f"{model.schema_[:100]}: {str(error)[:500]}")
    except ValueError as error:
        findings.add(node.place, str(error), "Or write `introspection`, which asks the endpoint, or `none`.")
    return None


def _text(operation: GraphqlModel, files: Files) -> str:
    if operation.query is not None:
        return operation.query
    assert operation.file is not None
    return files.text(operation.file)


def _parsed(text: str) -> DocumentNode:
    from graphql import GraphQLError, parse

    try:
        return parse(text)
    except GraphQLError as error:
        raise ValueError(f"not a GraphQL document: {_located(error)}") from error
    except RecursionError as error:
        raise ValueError("the GraphQL document is nested too deeply") from error


def _check_operation(
    document: DocumentNode, operation: GraphqlModel, place: Place, *, subscribes: bool, to: Findings
) -> None:
    from graphql import OperationDefinitionNode

    found = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    names = [each.name.value for each in found if each.name is not None]
    if operation.operation is not None:
        found = [each for each in found if each.name is not None and each.name.value == operation.operation]
    if not found:
        missing = f"no operation '{operation.operation[:60]}'" if operation.operation is not None else "no operation"
        to.add(place, f"the document has {missing}", f"It has: {', '.join(names[:20])}." if names else "")
    elif len(found) > 1:
        to.add(place, "the document has several operations", f"Say which by `operation`: {', '.join(names[:20])}.")
    elif subscribes != (found[0].operation.value == "subscription"):
        hint = "Use `graphql` for it." if subscribes else "Use `subscribe` for it."
        to.add(place, f"the operation is a {found[0].operation.value}", hint)


def _problems(schema: GraphQLSchema, document: DocumentNode) -> list[str]:
    from graphql import validate

    try:
        return [_located(error) for error in validate(schema, document)[:_MOST_PROBLEMS]]
    except TypeError as error:
        return [str(error)[:500]]


def _located(error: GraphQLError) -> str:
    place = error.locations[0] if error.locations else None
    return f"{error.message} (line {place.line}, column {place.column})" if place else error.message
