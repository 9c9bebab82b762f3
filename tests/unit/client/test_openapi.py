from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetest.client.cli.root import cli
from fleetest.client.openapi.checks import checks_of, suite_of
from fleetest.client.openapi.document import Document, read_document
from fleetest.common.errors import InvalidRequest
from fleetest.worker.checks.scenario import Surroundings, read_scenario

SHOP = """
openapi: 3.0.3
info: {title: Book shop}
servers: [{url: "http://{host}/v1", variables: {host: {default: shop.example}}}]
security: [{token: []}]
paths:
  /books/{book-id}:
    parameters: [{$ref: '#/components/parameters/Id'}]
    get:
      operationId: showBook
      tags: [Books]
      responses:
        404: {description: no}
        200: {$ref: '#/components/responses/Book'}
  /books:
    post:
      tags: [Books]
      summary: Add a book
      parameters: [{in: query, name: dry, required: true, schema: {type: boolean}}]
      security: []
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/Book'}}}}
      responses: {201: {description: made}}
  /search:
    get: {responses: {default: {description: found}}}
components:
  parameters:
    Id: {in: path, name: book-id, required: true, schema: {type: integer, minimum: 5}}
  responses:
    Book: {content: {application/json: {schema: {$ref: '#/components/schemas/Book'}}}}
  schemas:
    Book:
      required: [title]
      properties:
        id: {type: integer, readOnly: true}
        title: {type: string, example: "costs ${5}"}
        printed: {type: string, format: date, nullable: true}
        sequel: {$ref: '#/components/schemas/Book'}
        price: {type: number, minimum: 0, exclusiveMinimum: true}
  securitySchemes:
    token: {type: http, scheme: bearer}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("openapi.yaml").write_text(SHOP)
    return tmp_path


def init(*arguments):
    return CliRunner().invoke(cli, ["init", "--openapi", "openapi.yaml", *arguments])


def scenario(path):
    given = Surroundings(root=path.parents[2], variables={}, env={})
    return read_scenario(path, source=path.name, surroundings=given)


def test_each_operation_becomes_a_step_with_values_that_its_schema_allows(project):
    assert init().exit_code == 0

    books = yaml.safe_load(Path("tests/api/books.rest.yaml").read_text())
    assert (books["base_url"], books["auth"]) == (
        "http://shop.example/v1",
        {"bearer": "${env.API_TOKEN:-change-me}"},
    )
    assert books["variables"] == {"book-id": 5}
    show, add = books["steps"]
    assert show == {
        "name": "showBook",
        "get": "/books/${book-id}",
        "expect": {
            "status": 200,
            "schema": "../../openapi.yaml#/components/responses/Book/content/application~1json/schema",
        },
    }
    assert (add["post"], add["query"], add["auth"]) == ("/books", {"dry": True}, "none")
    assert add["json"]["title"] == "costs $${5}"
    assert "id" not in add["json"]


def test_what_is_written_can_be_run(project):
    init()

    found = scenario(project / "tests/api/books.rest.yaml")

    assert [step.name for step in found.steps] == ["showBook", "Add a book"]
    assert found.schemas[0, "expect"].problems({"title": "x", "printed": None, "price": 0}) == [
        "$.price: 0 is less than or equal to the minimum of 0"
    ]
    assert [step.name for step in scenario(project / "tests/api/search.rest.yaml").steps] == ["get /search"]


def test_nothing_is_written_over_unless_asked_for(project):
    init()
    Path("fleetest.yaml").write_text("mine")

    refused, forced = init(), init("--force")

    assert refused.exit_code != 0
    assert forced.exit_code == 0
    assert Path("fleetest.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("swagger: '2.0'", "is Swagger 2"),
        ("[1]", "is no OpenAPI document"),
        ("a: [", "is neither JSON nor YAML"),
        ("a: " + "[" * 5000, "is neither JSON nor YAML"),
        (b"\xff\xfe\x00", "is neither JSON nor YAML"),
    ],
)
def test_document_that_is_none_is_refused(tmp_path, text, message):
    path = tmp_path / "api.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(InvalidRequest, match=message):
        read_document(path)


words = st.sampled_from(
    ["paths", "/a/{b}", "get", "post", "parameters", "in", "path", "query", "name", "b", "required", "schema", "$ref",
     "#/paths/~1a~1{b}", "#", "type", "object", "array", "properties", "items", "allOf", "enum", "example", "tags",
     "responses", "200", "content", "application/json", "requestBody", "servers", "url", "security"]
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=20)
@given(st.dictionaries(words, values), st.dictionaries(words, values))
def test_whatever_a_document_holds_makes_files_or_none(tmp_path_factory, top, operation):
    document = Document(content={**top, "paths": {"/a/{b}": {"get": operation, "post": {}}}})

    files = checks_of(document, location="openapi.json")

    assert files
    for text in files.values():
        assert yaml.safe_load(text)["steps"]
    assert json.dumps(yaml.safe_load(suite_of(document, directory="tests/api")))
