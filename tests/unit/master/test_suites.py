"""The same text is submitted again and again."""

from __future__ import annotations

import pytest

from fleetest.common.suite import SuiteInvalid
from fleetest.master.suites import Suites

SUITE = """\
version: 1
name: shop
tasks:
  unit: {args: [tests]}
"""


async def test_a_text_is_read_once() -> None:
    suites = Suites()

    first = await suites.read(SUITE, source="fleetest.yaml")

    assert await suites.read(SUITE, source="fleetest.yaml") is first
    assert (await suites.read(SUITE.replace("unit", "fast"), source="fleetest.yaml")).tasks[0].name == "fast"


async def test_a_text_is_another_suite_in_another_environment() -> None:
    suites, text = Suites(), SUITE + "environments: {dev: {}, prod: {}}\n"

    read = [await suites.read(text, source="fleetest.yaml", environment=name) for name in ("dev", "prod")]

    assert [suite.environment for suite in read] == ["dev", "prod"]


async def test_what_is_wrong_is_told_under_the_name_that_it_has_each_time() -> None:
    suites = Suites()

    for name in ("a.yaml", "b.yaml"):
        with pytest.raises(SuiteInvalid, match=name):
            await suites.read("version: 2", source=name)
