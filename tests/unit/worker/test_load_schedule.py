"""The schedule that all generators of a load test share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.worker.load.schedule import Schedule, share_of

STAGES = st.lists(st.tuples(st.floats(0.1, 30), st.integers(0, 200)), min_size=1, max_size=4)


def test_a_constant_rate_is_kept_from_the_first_moment_to_the_end() -> None:
    arrivals = list(Schedule(40, [(6.0, 40)]).arrivals(0, 1))

    assert len(arrivals) == 240
    assert arrivals[:3] == pytest.approx([0, 0.025, 0.05])
    assert arrivals[-1] == pytest.approx(5.975)


def test_a_rising_rate_has_as_many_arrivals_as_its_integral() -> None:
    arrivals = list(Schedule(0, [(10.0, 20), (5.0, 20)]).arrivals(0, 1))

    assert len(arrivals) == 200
    assert sum(at < 10 for at in arrivals) == 100
    assert sum(at < 5 for at in arrivals) == pytest.approx(25, abs=1)


@given(st.integers(0, 200), STAGES, st.integers(1, 7))
def test_generators_together_begin_exactly_what_one_alone_would(start: int, stages: list, count: int) -> None:
    schedule = Schedule(start, stages)

    alone = list(schedule.arrivals(0, 1))
    together = sorted(at for index in range(count) for at in schedule.arrivals(index, count))

    assert together == alone
    assert alone == sorted(alone)
    assert all(0 <= at <= schedule.seconds + 1e-6 for at in alone)
    befores = [start, *(target for _, target in stages[:-1])]
    due = sum((before + target) / 2 * length for (length, target), before in zip(stages, befores, strict=True))
    assert abs(len(alone) - due) < 1.5


@given(st.floats(0, 1000), st.integers(1, 50))
def test_users_are_dealt_to_all_generators_evenly(users: float, count: int) -> None:
    shares = [share_of(users, index, count) for index in range(count)]

    assert sum(shares) == int(users + 1e-9)
    assert max(shares) - min(shares) <= 1


def test_the_target_moves_evenly_from_stage_to_stage() -> None:
    schedule = Schedule(0, [(10.0, 100), (5.0, 100), (5.0, 0)])

    assert [schedule.target(at) for at in (0, 5, 10, 12, 17.5, 20, 99)] == [0, 50, 100, 100, 50, 0, 0]
