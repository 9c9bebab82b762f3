"""REST and GraphQL checks on a cluster, against a server that is really there."""

from __future__ import annotations

import json

from tests.support.shop import open_shop

SUITE = """
version: 1
name: shop
defaults:
  variables: {title: Emma}
  base_url: %s
tasks:
  rest: {type: rest, retries: 1}
  graph: {type: graphql, needs: {rest: always}}
"""
REST = """
steps:
  - {name: add, post: /books, json: {title: "${title}"}, expect: {status: 201}, capture: {id: $.id}}
  - {name: show, get: "/books/${id}", expect: {json: {$.title: Emma, $.pages: 474}}}
"""
GRAPHQL = """
steps:
  - {name: books, graphql: "{ books { title } }", expect: {json: {"$.data.books[-1].title": "${title}"}}}
"""


def test_checks_run_as_cases_and_their_assertions_are_shown_one_by_one(shared_cluster, tmp_path):
    (tmp_path / "api").mkdir()
    (tmp_path / "api/shop.rest.yaml").write_text(REST)
    (tmp_path / "api/shop.graphql.yaml").write_text(GRAPHQL)
    with open_shop() as shop:
        (tmp_path / "fleetest.yaml").write_text(SUITE % shop.url)

        done = shared_cluster.fleetest("run", "--json", "report.json", cwd=tmp_path)

    assert done.returncode == 1, done.stderr
    run_id = shared_cluster.json("ls", "--limit", "1")[0]["run_id"]
    cases = {case["result"]["case_id"]: case for case in shared_cluster.json("show", "--cases", run_id)["cases"]}
    show = cases["api/shop.rest.yaml::show"]
    assert {name: case["result"]["outcome"] for name, case in cases.items()} == {
        "api/shop.rest.yaml::add": "passed",
        "api/shop.rest.yaml::show": "failed",
        "api/shop.graphql.yaml::books": "passed",
    }
    assert show["attempts"] == 2
    assert [each for each in show["result"]["assertions"] if not each["passed"]] == [
        {"name": "$.pages", "passed": False, "message": "expected 474, found nothing"}
    ]
    assert "failed $.pages: expected 474, found nothing" in shared_cluster.fleetest("show", run_id).stdout
    tests = json.loads((tmp_path / "report.json").read_text())["results"]["tests"]
    steps = next(test["steps"] for test in tests if test["name"].endswith("::show"))
    assert [step["status"] for step in steps] == ["passed", "passed", "failed"]
