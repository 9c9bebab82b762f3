from __future__ import annotations

from datetime import timedelta

from fleetest.common.backoff import Backoff


def test_ceiling_doubles_with_every_failure_up_to_the_longest():
    backoff = Backoff(first=timedelta(seconds=1), longest=timedelta(seconds=5))

    ceilings = [backoff.ceiling(failures).total_seconds() for failures in (1, 2, 3, 4, 100_000)]

    assert ceilings == [1, 2, 4, 5, 5]


def test_delay_is_a_random_part_of_the_ceiling():
    fractions = iter([0.0, 0.25, 0.5])
    backoff = Backoff(first=timedelta(seconds=4), fraction=lambda: next(fractions))

    delays = [backoff.delay(failures).total_seconds() for failures in (1, 2, 3)]

    assert delays == [0, 2, 8]
