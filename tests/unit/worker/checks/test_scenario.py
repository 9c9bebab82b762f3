"""Files of checks, read: what is wrong with them is said at once, each with its place."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetest.common.suite.problems import SuiteInvalid
from fleetest.worker.checks.scenario import Surroundings, read_scenario

SDL = "type Query { book(id: ID!): Book } type Book { title: String } type Subscription { prices: Int }"


def surroundings(root, **fields):
    return Surroundings(**{"root": root, "base_url": "http://shop", "variables": {}, "env": {}, **fields})


def problems(tmp_path, text, **fields):
    path = tmp_path / "shop.rest.yaml"
    path.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
    try:
        read_scenario(path, source="shop.rest.yaml", surroundings=surroundings(tmp_path, **fields))
    except SuiteInvalid as error:
        return [(f"{each.line}:{each.column}", f"{each.message} {each.hint}".strip()) for each in error.problems]
    return []


def test_all_problems_of_a_file_are_found_at_once(tmp_path):
    found = problems(
        tmp_path,
        """
        variables: {1a: x, ok: "${env.NOWHERE}"}
        steps:
          - name: one
            get: /a
            post: /b
            expect:
              status: 2000
              json:
                "$.[": 1
                $.a: {equalss: 1}
                $.b: {matches: "("}
              latency: 5
          - name: one
            get: "/${titel}"
            expect: {data: 1}
            poll: {interval: none}
          - name: three
            get: /a
            capture: {x: "$$", y: {regex: "("}}
            auth: {}
          - name: four
          - {name: five, post: /a, json: 1, form: {a: 1}, colour: red}
          - {name: "a::b", request: {method: "NO GOOD", url: /}}
        """,
    )

    for message in (
        "'1a' cannot name a variable",
        "there is no value for ${env.NOWHERE} Set the environment variable NOWHERE, or write ${env.NOWHERE:-default}.",
        "'2000' is not a status",
        "'$.[' is not a JSONPath",
        "'equalss' is not an operator Did you mean 'equals'?",
        "'(' is not a regular expression",
        "'5' is not a duration",
        "two steps are called 'one'",
        "there is no value for ${titel}",
        "'none' is not a duration",
        "'$$' is not a JSONPath",
        "step 'four' has no request",
        "unknown key 'colour'",
        "a step's name cannot hold '::'",
    ):
        assert any(message in each for _, each in found), (message, found)
    assert any(place.startswith("10:") and "'$.['" in message for place, message in found)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("get: /a, post: /b", "a step is one request, not `get` and `post`"),
        ("post: /a, json: 1, body: x", "a request has one body, not `body` and `json`"),
        ("get: /a, expect: {errors: 1}", "`errors` is expected of GraphQL only"),
        ("get: /a, auth: {bearer: x, basic: {username: a, password: b}}", "must be one of `bearer`"),
        ("post: /a, multipart: {a: {filename: x}}", "a part has either `value` or `file`"),
        ("post: /a, body_file: ../../etc/passwd", "leads out of the workspace"),
        ("post: /a, body_file: nothing.txt", "there is no file 'nothing.txt' beside this one"),
        ("get: /a, expect: {schema: {type: colour}}", "schema: not a JSON Schema: $.type: 'colour' is not valid"),
        ("get: /a, expect: {schema: nothing.json}", "schema: there is no file 'nothing.json'"),
        ("get: /a, expect: {schema: 'here.json#/nowhere'}", "schema: there is no '/nowhere'"),
        ("get: /a, expect: {schema: {$ref: 'http://example.com/schema'}}", "only files of the workspace are read"),
        ("graphql: '{ book'", "not a GraphQL document: Syntax Error"),
        ("graphql: 'fragment A on B { c }'", "the document has no operation"),
        (
            "graphql: 'query A { a } query B { b }'",
            "the document has several operations Say which by `operation`: A, B.",
        ),
        ("graphql: {query: '{ a }', operation: C}", "the document has no operation 'C'"),
        ("graphql: 'subscription { prices }'", "the operation is a subscription Use `subscribe` for it."),
        ("subscribe: '{ book }'", "the operation is a query Use `graphql` for it."),
        ("graphql: {file: nothing.graphql}", "there is no file 'nothing.graphql'"),
        ("graphql: '{ books { title } }'", "Cannot query field 'books' on type 'Query'"),
        ("graphql: '{ a }', form: {a: 1}", "a GraphQL operation is its request's body"),
    ],
)
def test_step_that_makes_no_sense_is_refused(tmp_path, step, message):
    (tmp_path / "shop.graphql").write_text(SDL)
    (tmp_path / "here.json").write_text("{}")

    found = problems(tmp_path, f"schema: shop.graphql\nsteps:\n  - {{name: one, {step}}}\n")

    assert message in " ".join(each for _, each in found)
    assert all(place.startswith("3:") for place, _ in found)


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (b"", "1:1", "the file of checks is empty Begin with the line `steps:`."),
        (b"- a", "1:1", "a file of checks is a mapping"),
        (b"steps: []", "1:8", "steps: must not be empty"),
        (b"name: x", "1:1", "key 'steps' is missing"),
        (b"steps: [{name: a, get: /}]\nname: \xff", "2:7", "this is not UTF-8"),
        (b"steps: [" * 50, "1:81", "nested more than 20 levels deep"),
        (b"x" * (2 << 20), "0:0", "the file of checks is larger than"),
        (b"schema: nothing.graphql\nsteps: [{name: a, graphql: '{ a }'}]", "1:9", "there is no file 'nothing.graphql'"),
        (b"verify: nothing.pem\nsteps: [{name: a, get: /}]", "1:9", "there is no file 'nothing.pem'"),
    ],
)
def test_file_that_is_none_is_refused(tmp_path, text, place, message):
    found = problems(tmp_path, text)

    ((found_place, found_message),) = found
    assert found_place == place
    assert message in found_message


def test_relative_address_needs_a_base_url(tmp_path):
    text = "steps:\n  - {name: a, get: /a}\n  - {name: b, get: 'http://b'}"

    found = problems(tmp_path, text, base_url="")

    assert found == [
        ("2:5", "step 'a' has no address: '/a' is relative Write `base_url:` in the file, or give the task one.")
    ]


def test_variables_of_the_task_are_instead_of_those_of_the_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("variables: {a: 1, b: '${a}', c: '${env.HOST}:${env.PORT:-80}'}\nsteps: [{name: a, get: /}]")
    given = surroundings(tmp_path, variables={"a": [2]}, env={"HOST": "shop"})

    variables = read_scenario(path, source="a", surroundings=given).variables()

    assert [variables.value(name) for name in "abc"] == [[2], [2], "shop:80"]


def test_schema_may_be_a_part_of_an_openapi_document(tmp_path):
    (tmp_path / "openapi.yaml").write_text("""
components:
  schemas:
    Book: {required: [title], properties: {title: {$ref: '#/components/schemas/Title'}}}
    Title: {type: string}
""")
    path = tmp_path / "a.yaml"
    path.write_text("steps: [{name: a, get: /, expect: {schema: 'openapi.yaml#/components/schemas/Book'}}]")

    schema = read_scenario(path, source="a", surroundings=surroundings(tmp_path)).schemas[0, "expect"]

    assert schema.problems({"title": "Dune"}) == []
    assert schema.problems({"title": 1}) == ["$.title: 1 is not of type 'string'"]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["${a}", "${", "$.a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(
    ["name", "get", "post", "request", "json", "form", "multipart", "expect", "capture", "poll", "auth", "graphql",
     "subscribe", "query", "headers", "timeout", "body", "body_file"]
)  # fmt: skip
steps = st.dictionaries(keys, values, max_size=4) | values


@given(
    st.lists(steps, max_size=3),
    st.dictionaries(st.sampled_from(["variables", "auth", "schema", "verify", "secrets"]), values),
)
@example([{"name": "a", "get": "/", "expect": {"json": {"$": {"matches": "(" * 300}}}}], {})
@example([{"name": "a", "get": "/", "expect": {"schema": {"$ref": "#"}}}], {})
@example([{"name": "a", "graphql": "{" * 5000}], {})
def test_whatever_a_file_holds_is_read_or_refused(tmp_path_factory, steps, head):
    directory = tmp_path_factory.getbasetemp()

    found = problems(directory, json.dumps({**head, "steps": steps}).encode())

    assert isinstance(found, list)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    assert problems(tmp_path_factory.getbasetemp(), content)
