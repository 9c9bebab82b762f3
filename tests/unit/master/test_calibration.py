"""The speeds of workers are learnt from cases that several of them ran."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.master.runs.calibration import FEWEST_COMMON, Measure, Speed, learn
from fleetest.master.runs.speeds import SpeedBook
from tests.tools.core import Core

speeds = st.floats(0.25, 4)
seconds = st.floats(0.01, 10)


def measure(worker_id: str, took: float, earlier_id: str, earlier_took: float) -> Measure:
    return Measure(
        worker_id=worker_id,
        took=timedelta(seconds=took),
        earlier_id=earlier_id,
        earlier_took=timedelta(seconds=earlier_took),
    )


@given(
    true=st.lists(speeds, min_size=2, max_size=5),
    durations=st.lists(seconds, min_size=9, max_size=15),
    change=st.floats(0.5, 2),
    wild=st.lists(st.floats(0.1, 10), min_size=3, max_size=3),
)
def test_speeds_are_found_though_tests_are_wild_and_the_code_has_changed(
    true: list[float], durations: list[float], change: float, wild: list[float]
) -> None:
    workers = {f"w{index}": speed for index, speed in enumerate(true)}
    measures = [
        measure(one, duration * change * noise / workers[one], other, duration / workers[other])
        for one, other in itertools.product(workers, repeat=2)
        for duration, noise in itertools.zip_longest(durations, wild, fillvalue=1.0)
    ]

    learnt = learn({}, measures)

    for one, other in itertools.combinations(workers, 2):
        within = pytest.approx(workers[one] / workers[other], rel=0.01)
        assert learnt[one].speed / learnt[other].speed == within


def test_a_few_common_cases_say_nothing() -> None:
    measures = [measure("new", 2.0, "old", 1.0)] * (FEWEST_COMMON - 1)

    assert learn({}, measures) == {}


def test_a_new_worker_is_compared_with_those_that_are_known() -> None:
    known = {"old": Speed(speed=2.0, cases=100)}

    learnt = learn(known, [measure("new", 2.0, "old", 1.0)] * 10)

    assert learnt["new"].speed == pytest.approx(1.0)
    assert learnt["old"].speed == pytest.approx(2.0)


def test_a_known_speed_moves_half_way_to_what_a_run_says() -> None:
    known = {"a": Speed(speed=1.0, cases=10), "b": Speed(speed=1.0, cases=10)}

    learnt = learn(known, [measure("a", 4.0, "b", 1.0)] * 10)

    assert learnt["b"].speed / learnt["a"].speed == pytest.approx(2.0)  # half way to 4, as ratios go


async def test_speeds_are_kept_for_each_project(core: Core) -> None:
    book = SpeedBook(core.store)

    await book.learn("p", [measure("a", 2.0, "b", 1.0)] * 10)
    await book.learn("q", [measure("a", 2.0, "c", 1.0)] * 10)

    assert set(await book.of_project("p")) == {"a", "b"}
    assert set(await book.overall()) == {"a", "b", "c"}
