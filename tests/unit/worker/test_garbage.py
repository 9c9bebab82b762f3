"""The collector of garbage has its own pace again before a test runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from fleetest.worker.resident.garbage import PutOff


@pytest.fixture(autouse=True)
def _pace() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_the_collector_is_put_off_until_the_end() -> None:
    gc.set_threshold(700, 10, 10)

    put_off = PutOff()
    meanwhile = gc.get_threshold()
    put_off.end()

    assert meanwhile[0] > 10_000
    assert gc.get_threshold() == (700, 10, 10)


def test_what_was_made_meanwhile_counts_as_old() -> None:
    put_off = PutOff()
    made: list[object] = []

    put_off.end()

    assert any(each is made for each in gc.get_objects(generation=2))
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("pace", [0, 500, 1_000_000])
def test_what_others_say_to_the_collector_stands(pace: int) -> None:
    put_off = PutOff()
    gc.set_threshold(pace, 5, 5)

    put_off.end()

    assert gc.get_threshold() == (pace, 5, 5)


@pytest.mark.parametrize("pace", [0, 1_000_000])
def test_who_looks_seldom_anyway_is_left_alone(pace: int) -> None:
    gc.set_threshold(pace, 5, 5)

    PutOff()

    assert gc.get_threshold() == (pace, 5, 5)
