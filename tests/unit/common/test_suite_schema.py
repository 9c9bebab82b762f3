from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from fleetest.common.suite import load_suite, suite_schema
from fleetest.common.suite.model import SuiteModel, TaskModel

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "suite.md"
EXAMPLES = [
    example
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    for example in re.findall(r"```yaml\n(version: 1\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for section in (schema, *schema["$defs"].values()):
        yield from section.get("properties", {}).items()


def accepts(text: str) -> bool:
    return validator().is_valid(yaml.safe_load(text))


@cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(suite_schema())


def test_the_schema_is_a_valid_one_and_says_its_dialect():
    jsonschema.Draft202012Validator.check_schema(suite_schema())

    assert suite_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_key_has_a_title_and_a_description():
    assert [
        key for key, value in properties(suite_schema()) if not (value.get("title") and value.get("description"))
    ] == []


def test_defaults_are_shown_as_they_are_written():
    timeouts = suite_schema()["$defs"]["TimeoutsModel"]["properties"]
    task = suite_schema()["$defs"]["TaskModel"]["properties"]

    assert {key: value["default"] for key, value in timeouts.items()} == {
        "queue": "none",
        "start": "10m",
        "silence": "5m",
        "total": "30m",
    }
    assert task["shards"]["default"] == "auto"
    assert "default" not in task["type"]
    assert "default" not in task["executor"]


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("\n")[1].partition(" ")[2])
def test_every_example_of_the_docs_loads_and_fits_the_schema(text):
    assert load_suite(text, source="docs").tasks
    assert accepts(text)


def test_the_page_has_examples_and_names_every_key():
    page = PAGE.read_text(encoding="utf-8")

    keys = {*SuiteModel.model_fields, *TaskModel.model_fields} - {"requires", "timeouts"}
    keys |= {f"timeouts.{key}" for key in ("queue", "start", "silence", "total")}
    keys |= {f"requires.{key}" for key in ("capabilities", "cpu", "memory", "disk")}
    assert len(EXAMPLES) >= 4
    assert [key for key in keys if f"| `{key}` |" not in page] == []


@pytest.mark.parametrize(
    "task",
    [
        "{args: t, setup: x, needs: b, artifacts: x, retry_on: failed, secrets: A}",
        "{args: [t, 3], needs: [b], retry_on: [errored]}",
        "{run: x, needs: {b: always}, shards: auto, timeouts: {total: none, start: 1h30m}}",
        "{command: [sleep, 5], needs: {b: {when: failed}}, shards: 3, env: {A: 1, B: true}}",
        "{run: x, matrix: {n: [1], include: [{n: 2}]}, shards: '${matrix.n}', split: '${matrix.n}'}",
        "{run: x, requires: {capabilities: {os: linux}, cpu: 1, memory: 2GiB}}",
    ],
)
def test_what_can_be_loaded_fits_the_schema(task):
    text = f"version: 1\nname: x\ntasks: {{a: {task}, b: {{run: x}}}}"

    assert accepts(text)


@pytest.mark.parametrize(
    "task",
    [
        "{shard: 3}",
        "{priority: 101}",
        "{priority: '3'}",
        "{split: cases}",
        "{timeouts: {total: 30}}",
        "{timeouts: {total: ''}}",
        "{requires: {memory: 2G}}",
        "{needs: 3}",
        "{needs: {b: never}}",
        "{matrix: {n: 1}}",
        "{command: x}",
        "{env: {A: [1]}}",
        "3",
    ],
)
def test_what_cannot_be_loaded_mostly_does_not_fit_it(task):
    assert not accepts(f"version: 1\nname: x\ntasks: {{a: {task}}}")


@pytest.mark.parametrize("text", ["version: 2\nname: x\ntasks: {a: {}}", "version: 1\nname: x\ntasks: {}", "name: x"])
def test_a_wrong_head_does_not_fit_it(text):
    assert not accepts(text)
