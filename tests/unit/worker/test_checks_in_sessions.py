"""Checks as cases of a resident session: planned, run apart from the steps before them, and told of in full."""

from __future__ import annotations

from pathlib import Path

from fleetest.common.states import Verdict
from tests.support.shop import open_shop
from tests.tools.local_worker import make_spec, opened, run_cases

STEPS = """
steps:
  - {name: add, post: /books, json: {title: Emma}, expect: {status: 201}, capture: {id: $.id}}
  - {name: show, get: "/books/${id}", expect: {json: {$.title: Emma, $.pages: {exists: true}}}}
"""


async def test_case_that_runs_alone_has_the_steps_before_it_run_first(tmp_path: Path) -> None:
    (tmp_path / "shop.rest.yaml").write_text(STEPS)
    with open_shop() as shop:
        command = ("-p", "fleetest.worker.checks.plugin", f"--checks-base-url={shop.url}")
        spec = make_spec(tmp_path, command=command)

        async with opened(spec) as session:
            _, planned = await run_cases(session, spec, ())
            ended, ran = await run_cases(session, spec, ["shop.rest.yaml::show"], token=2)
            _, again = await run_cases(session, spec, ["shop.rest.yaml::show"], token=3)

    assert planned.plan is not None
    assert [(case.case_id, case.file, case.line) for case in planned.plan] == [
        ("shop.rest.yaml::add", "shop.rest.yaml", 3),
        ("shop.rest.yaml::show", "shop.rest.yaml", 4),
    ]
    assert ended.verdict is Verdict.COMPLETED
    (result,) = ran.results
    assert [(each.name, each.passed) for each in result.assertions] == [
        ("status", True),
        ("$.title", True),
        ("$.pages exists", False),
    ]
    assert result.message == "$.pages exists: expected something, found nothing"
    assert "--- response" in result.details
    assert len(again.results) == 1
    assert shop.asked == ["POST /books", "GET /books/2", "POST /books", "GET /books/3"]
