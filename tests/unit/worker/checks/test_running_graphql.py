"""GraphQL checks, run by pytest against a real endpoint, subscriptions against a real WebSocket."""

from __future__ import annotations

import pytest

from tests.support.shop import SDL, open_price_feed

pytest_plugins = ["pytester"]


@pytest.fixture
def run_graphql(run):
    return lambda text, **options: run(text, name="shop.graphql.yaml", **options)


def test_operations_are_checked_sent_and_compared(run_graphql, pytester):
    pytester.path.joinpath("book.graphql").write_text("query Book($id: ID!) { book(id: $id) { title } }")
    ran = run_graphql("""
        steps:
          - name: a query from a file
            graphql: {file: book.graphql, operation: Book, variables: {id: "1"}}
            expect: {data: {equals: {book: {title: Dune}}}}
            capture: {title: $.data.book.title}
          - name: a mutation
            graphql:
              query: "mutation($title: String!) { rename(id: 1, title: $title) { title } }"
              variables: {title: "${title} II"}
            expect: {json: {$.data.rename.title: Dune II}}
          - name: an error that is expected
            graphql: 'mutation { rename(id: 9, title: "x") { title } }'
            expect: {errors: {length: 1}, json: {"$.errors[0].message": no book 9}, data: {equals: {rename: null}}}
          - name: an error that is not
            graphql: 'mutation { rename(id: 9, title: "x") { title } }'
          - name: not in the schema
            graphql: "{ books { colour } }"
    """)

    assert ran.outcomes == {
        "a query from a file": "passed",
        "a mutation": "passed",
        "an error that is expected": "passed",
        "an error that is not": "failed",
        "not in the schema": "failed",
    }
    assert "no book 9" in ran.failed("an error that is not")["errors"]
    assert ran.failed("not in the schema") == {
        "document": "Cannot query field 'colour' on type 'Book'. (line 1, column 11)"
    }


def test_endpoint_that_keeps_its_schema_to_itself(run_graphql, shop, pytester):
    shop.introspects = False
    pytester.path.joinpath("shop.graphql").write_text(SDL)
    steps = "steps: [{name: list, graphql: '{ books { title } }'}]"

    asked, read, unchecked = (
        run_graphql(f"schema: {schema}\n{steps}") for schema in ("introspection", "shop.graphql", "none")
    )

    assert [ran.outcomes["list"] for ran in (asked, read, unchecked)] == ["failed", "passed", "passed"]
    assert "does not answer introspection (status 400)" in asked.failed("list")["document"]


def test_subscriptions_wait_for_their_messages(run_graphql, shop):
    with open_price_feed(shop):
        ran = run_graphql(
            """
            schema: none
            endpoint: /
            steps:
              - name: three
                subscribe: {query: &prices "subscription($count: Int!) { prices(count: $count) { cents } }", variables: {count: 3}, messages: 3}
                expect: {json: {"$[*].data.prices.cents": [0, 1, 2]}}
              - name: too few
                subscribe: {query: *prices, variables: {count: 1}, messages: 2}
              - name: waits in vain
                subscribe: {query: *prices, variables: {count: 10}, messages: 11}
              - name: refused
                subscribe: {query: *prices, payload: {token: wrong}}
              - name: garbled
                subscribe: {query: *prices, payload: {token: garbled}}
              - name: an error
                subscribe: {query: *prices, variables: {count: -1}}
            """,
            base_url=shop.websocket_url,
        )

    assert {name for name, outcome in ran.outcomes.items() if outcome == "passed"} == {"three"}
    assert ran.failed("too few") == {"messages": "expected 2, found 1"}
    assert ran.failed("waits in vain") == {"messages": "expected 11, found 10"}
    assert "the endpoint sent what is not JSON" in ran.failed("garbled")["response"]
    assert "no negative count" in ran.failed("an error")["errors"]
    assert ran.failed("refused") == {"response": "the endpoint closed the connection: 4403 Forbidden"}


def test_endpoint_without_a_websocket_is_named(run_graphql):
    ran = run_graphql("schema: none\nsteps: [{name: prices, subscribe: 'subscription { prices(count: 1) { cents } }'}]")

    assert "answers with 404, not with a WebSocket" in ran.text("prices") or "no WebSocket" in ran.text("prices")
