"""Load tests in a suite: what generators are told, what the master judges, and what is wrong with the rest."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fleetest.common.load import Threshold
from fleetest.common.suite import SuiteInvalid, load_suite
from fleetest.common.tasks import OnLost, RunnerType, Task

DOCS = Path(__file__).parents[3] / "docs" / "kinds"


def task(text: str) -> Task:
    (found,) = load_suite(f"version: 1\nname: s\ntasks: {{t: {{type: performance, {text}}}}}", source="s.yaml").tasks
    return found


def scenario(found: Task) -> dict[str, Any]:
    (text,) = found.command
    read: dict[str, Any] = json.loads(text)
    return read


def test_a_load_test_is_a_gang_of_generators_with_one_scenario_and_thresholds() -> None:
    load = task(
        "host: '${env.SHOP_URL}', model: open, start: 0, generators: 4, on_lost_generator: exclude, shards: 9,"
        "stages: [{duration: 30s, target: 50}, {duration: 1m, target: 50}],"
        "requests: [{path: /books, weight: 3}, {method: POST, path: /orders, name: buy, json: {n: 1}, expect: 201}],"
        "thresholds: [p95 < 300ms, {buy: [error_rate < 1%, p99 < 1s]}], abort: error_rate < 50%, abort_window: 5s"
    )

    assert (load.runner, load.shards, load.gang, load.planned) == (RunnerType.LOAD, 4, OnLost.CONTINUE, False)
    told = scenario(load)
    assert (told["model"], told["start"], told["stages"]) == ("open", 0, [[30.0, 50.0], [60.0, 50.0]])
    assert [(each["name"], each["expect"], each["weight"]) for each in told["requests"]] == [
        ("GET /books", [], 3),
        ("buy", [201], 1),
    ]
    assert load.load is not None
    assert [str(each) for each in load.load.thresholds] == ["p95 < 300ms", "buy: error_rate < 1%", "buy: p99 < 1s"]
    assert load.load.abort == (Threshold(metric="error_rate", comparison="<", limit=0.5),)
    assert load.load.abort_window == timedelta(seconds=5)


def test_load_begins_at_the_first_target_and_a_lost_generator_spoils_it_unless_the_suite_says_otherwise() -> None:
    load = task("locustfile: load.py, classes: [Buyer], model: closed, stages: [{duration: 10s, target: 20}]")

    told = scenario(load)
    assert (told["start"], told["locustfile"], told["classes"]) == (20, "load.py", ["Buyer"])
    assert (load.shards, load.gang) == (1, OnLost.END)
    assert (
        task("locustfile: l.py, stages: [{duration: 1s, target: 1}], on_lost_generator: restart").gang is OnLost.ABORT
    )


STAGES = "stages: [{duration: 5s, target: 10}]"
SIMPLE = "host: http://h, requests: [{path: /}]"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        (STAGES, "a performance task needs `locustfile` or `requests`", "As in `requests: [{path: /}]`."),
        (f"{SIMPLE}", "key 'stages' is missing", ""),
        (f"{SIMPLE}, stages: []", "stages: must not be empty", ""),
        (f"{SIMPLE}, stages: [{{duration: none, target: 1}}]", "duration: duration cannot be `none`", "an end"),
        (f"{SIMPLE}, stages: [{{duration: 5, target: 1}}]", "'5' is not a duration", "5s or 5m"),
        (f"{SIMPLE}, stages: [{{duration: 5s, target: -1}}]", "target: must be at least 0", ""),
        (f"{SIMPLE}, stages: [{{duration: 5s, target: 0}}]", "stages: there is never any load", "above 0"),
        (
            f"{SIMPLE}, stages: [{{duration: 20m, target: 1}}, {{duration: 10m, target: 0}}]",
            "the schedule takes 30m, and `timeouts.total` is 30m",
            "As in `timeouts: {total: 33m}`.",
        ),
        (f"{SIMPLE}, {STAGES}, thresholds: [p95 < 300]", "compared with a time, not '300'", "Write 300ms."),
        (f"{SIMPLE}, {STAGES}, thresholds: [fast]", "'fast' is not a threshold", "p95 < 300ms"),
        (f"{SIMPLE}, {STAGES}, thresholds: [p95 < 3s, p95 < 3s]", "'p95 < 3s' is there twice", "Take one out."),
        (
            f"{SIMPLE}, {STAGES}, thresholds: [{{GET /x: p95 < 3s}}]",
            "no request is named 'GET /x'",
            "There are: GET /.",
        ),
        (f"{SIMPLE}, {STAGES}, thresholds: [[1]]", "must be a threshold, not", "As in"),
        (f"requests: [{{path: /}}], {STAGES}", "paths need a `host` before them", "SHOP_URL"),
        (f"host: shop, requests: [{{path: /}}], {STAGES}", "'shop' is not an address", "http://"),
        (f"{SIMPLE}, {STAGES}, think_time: 1s", "in the open model nobody waits", "Take it out."),
        (f"{SIMPLE}, {STAGES}, model: closed, think_time: [3s, 1s]", "the shortest comes before the longest", ""),
        (f"{SIMPLE}, {STAGES}, classes: [A]", "only a locustfile has classes", "Take it out."),
        (
            f"{SIMPLE}, model: closed, stages: [{{duration: 5s, target: 1.5}}]",
            "a target of users is a whole number",
            "",
        ),
        (f"{SIMPLE}, {STAGES}, generators: 501", "generators: must be at most 500", ""),
        (f"{SIMPLE}, {STAGES}, abort: p95 < 1s, abort_window: 1h", "abort_window: must be between 1s and 10m", ""),
        (f"host: http://h, requests: [{{path: /, expect: ok}}], {STAGES}", "must be a status of HTTP", ""),
        (f"host: http://h, requests: [{{path: /, body: a, json: 1}}], {STAGES}", "`body` or `json`, not both", ""),
    ],
)
def test_what_is_wrong_with_a_load_test_is_said_with_a_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(SuiteInvalid) as caught:
        task(text)

    problems = [problem for problem in caught.value.problems if message in problem.message]
    assert problems, [str(problem) for problem in caught.value.problems]
    assert hint in problems[0].hint
    assert problems[0].line == 3


def test_the_suites_of_the_page_are_read() -> None:
    page = (DOCS / "performance.md").read_text()
    suites = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]

    names = [load_suite(text, source="performance.md").tasks[-1].type for text in suites]

    assert names
    assert set(names) == {"performance"}
