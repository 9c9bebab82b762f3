"""Cases are dealt to shards: all of them, each once, and what belongs together stays together."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.results import PlannedCase
from fleetest.common.states import Outcome
from fleetest.common.tasks import Split, Task
from fleetest.master.runs.planner import LONG_FACTOR, Fleet, Plan, plan
from fleetest.master.store.ports import CaseHistory


def task(**settings: object) -> Task:
    return Task(name="unit", type="pytest", **settings)  # type: ignore[arg-type]  # forwarded as they are


def collected(*case_ids: str) -> list[PlannedCase]:
    """`file::name` or `file::name@group`."""
    return [
        PlannedCase(case_id=case_id, file=case_id.partition("::")[0], group=case_id.partition("@")[2])
        for case_id in case_ids
    ]


def known(durations: dict[str, float], *, failed: Iterable[str] = ()) -> dict[str, CaseHistory]:
    return {
        case_id: CaseHistory(
            case_id=case_id,
            duration=timedelta(seconds=seconds),
            outcome=Outcome.FAILED if case_id in failed else Outcome.PASSED,
        )
        for case_id, seconds in durations.items()
    }


def fleet(slots: int, **speeds: float) -> Fleet:
    """One worker for each slot; those whose speed is named are among them."""
    return Fleet(slots={f"w{number}": 1 for number in range(slots)}, speeds=speeds)


def dealt(made: Plan) -> list[list[str]]:
    return [[made.cases[index].case_id for index in shard.cases] for shard in made.shards]


def test_without_history_every_slot_gets_eight_parts() -> None:
    made = plan(task(), collected(*(f"a::{index}" for index in range(160))), {}, fleet=fleet(2))

    assert [len(shard.cases) for shard in made.shards] == [10] * 16
    assert made.predicted is None


def test_a_part_without_history_has_at_least_one_case() -> None:
    made = plan(task(), collected("a::1", "a::2"), {}, fleet=fleet(50))

    assert dealt(made) == [["a::1"], ["a::2"]]


def test_with_history_parts_take_about_as_long_as_each_other() -> None:
    durations = {f"a::{index}": 0.5 for index in range(40)}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(1))

    assert [shard.predicted for shard in made.shards] == [timedelta(seconds=5)] * 4
    assert made.predicted == timedelta(seconds=20)


def test_parts_are_not_shorter_than_what_handing_them_out_costs() -> None:
    durations = {f"a::{index}": 0.001 for index in range(100)}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(8))

    assert len(made.shards) == 1


def test_short_parts_are_as_many_for_each_slot() -> None:
    durations = {f"a::{index}": 0.001 for index in range(600)}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(2))

    assert [len(shard.cases) for shard in made.shards] == [150] * 4


def test_parts_are_not_longer_than_what_a_dead_worker_may_cost() -> None:
    durations = {f"a::{index}": 1.0 for index in range(1000)}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(1))

    assert {shard.predicted for shard in made.shards} == {timedelta(seconds=10)}


def test_cases_without_history_get_the_median_of_the_others() -> None:
    durations = {"a::1": 1.0, "a::2": 3.0, "a::3": 100.0}

    made = plan(task(shards=1), collected(*durations, "a::new"), known(durations), fleet=fleet(1))

    assert made.predicted == timedelta(seconds=107)


def test_a_long_part_goes_first_and_the_others_stay_in_the_order_of_collection() -> None:
    durations = {f"a::{index}": 1.0 for index in range(20)} | {"a::slow": 60.0, "a::slower": 90.0, "a::last": 1.0}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(2))

    assert dealt(made)[:2] == [["a::slower"], ["a::slow"]]
    rest = [case_id for shard in dealt(made)[2:] for case_id in shard]
    assert rest == [case_id for case_id in durations if not case_id.startswith("a::slow")]


def test_what_is_left_beside_long_parts_is_the_same_for_every_slot() -> None:
    durations = {f"a::{index}": 0.01 for index in range(200)} | {f"a::slow{index}": 3.0 for index in range(4)}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(2))

    assert [len(shard.cases) for shard in made.shards] == [1, 1, 1, 1, 100, 100]


def test_a_number_of_shards_is_taken_at_its_word() -> None:
    durations = {"a::1": 8.0, "a::2": 5.0, "a::3": 4.0, "a::4": 1.0}

    made = plan(task(shards=2), collected(*durations), known(durations), fleet=fleet(99))

    assert dealt(made) == [["a::1", "a::4"], ["a::2", "a::3"]]


def test_there_are_never_more_shards_than_units() -> None:
    assert len(plan(task(shards=10), collected("a::1", "a::2"), {}, fleet=fleet(1)).shards) == 2


def test_split_by_file_keeps_files_together() -> None:
    made = plan(task(shards=2, split=Split.FILE), collected("a::1", "b::1", "a::2", "b::2"), {}, fleet=fleet(1))

    assert sorted(dealt(made)) == [["a::1", "a::2"], ["b::1", "b::2"]]


def test_an_xdist_group_stays_together_whatever_the_split() -> None:
    ids = ["a::1@db", "a::2", "b::1", "b::2@db"]

    by_case = plan(task(shards=3), collected(*ids), {}, fleet=fleet(1))
    by_file = plan(task(shards=3, split=Split.FILE), collected(*ids), {}, fleet=fleet(1))

    assert sorted(dealt(by_case)) == [["a::1@db", "b::2@db"], ["a::2"], ["b::1"]]
    assert dealt(by_file) == [ids]


def test_nothing_collected_makes_no_shards() -> None:
    made = plan(task(), [], {}, fleet=fleet(1))

    assert (made.cases, made.shards, made.predicted) == ((), (), None)


def test_an_id_that_was_collected_twice_is_one_case() -> None:
    made = plan(task(shards=1), collected("a::1", "a::2", "a::1"), {}, fleet=fleet(1))

    assert dealt(made) == [["a::1", "a::2"]]
    assert made.left_out == 0


def test_last_failed_runs_what_failed_the_last_time() -> None:
    durations = {"a::1": 1.0, "a::2": 1.0, "a::3": 1.0}

    made = plan(task(last_failed=True), collected(*durations), known(durations, failed=["a::2"]), fleet=fleet(1))

    assert dealt(made) == [["a::2"]]
    assert made.left_out == 2


def test_last_failed_runs_everything_when_nothing_failed() -> None:
    made = plan(task(last_failed=True, shards=1), collected("a::1", "a::2"), known({"a::1": 1.0}), fleet=fleet(1))

    assert dealt(made) == [["a::1", "a::2"]]


def test_only_the_cases_asked_for_run_and_those_that_are_gone_are_named() -> None:
    made = plan(
        task(only_cases=("a::3", "gone", "a::1"), last_failed=True),
        collected("a::1", "a::2", "a::3"),
        {},
        fleet=fleet(1),
    )

    assert [case.case_id for case in made.cases] == ["a::1", "a::3"]
    assert (made.left_out, made.missing) == (1, ("gone",))


def test_half_a_million_cases_are_dealt_to_thousands_of_shards_without_counting_each_for_each() -> None:
    many = [PlannedCase(case_id=str(index)) for index in range(50_000)]

    made = plan(task(shards=5_000), many, {}, fleet=fleet(1))

    assert {len(shard.cases) for shard in made.shards} == {10}


SECONDS = st.floats(0, 1000, allow_nan=False)


@given(
    ids=st.lists(
        st.builds("{}::{}@{}".format, st.sampled_from("abc"), st.integers(0, 30), st.sampled_from(["", "g", "h"])),
        max_size=60,
    ),
    durations=st.dictionaries(
        st.builds("{}::{}@".format, st.sampled_from("abc"), st.integers(0, 30)), SECONDS, max_size=30
    ),
    shards=st.one_of(st.none(), st.integers(1, 20)),
    split=st.sampled_from(Split),
    slots=st.integers(1, 16),
)
def test_every_case_is_in_exactly_one_shard_and_units_are_never_parted(
    ids: list[str], durations: dict[str, float], shards: int | None, split: Split, slots: int
) -> None:
    made = plan(task(shards=shards, split=split), collected(*ids), known(durations), fleet=fleet(slots))

    groups = dealt(made)
    assert sorted(case_id for shard in groups for case_id in shard) == sorted(set(ids))
    assert [case.case_id for case in made.cases] == list(dict.fromkeys(ids))
    assert all(groups)
    assert all(first < second for shard in made.shards for first, second in pairwise(shard.cases))
    place = {case_id: index for index, shard in enumerate(groups) for case_id in shard}
    for key in (_group, _file) if split is Split.FILE else (_group,):
        for case_id in place:
            together = {place[other] for other in place if key(other) and key(other) == key(case_id)}
            assert len(together) <= 1


def _group(case_id: str) -> str:
    return case_id.partition("@")[2]


def _file(case_id: str) -> str:
    return case_id.partition("::")[0]


@pytest.mark.parametrize("slots", [1, 4])
def test_only_long_parts_are_moved_to_the_front(slots: int) -> None:
    durations = {f"a::{index}": float(index % 3) for index in range(60)}

    made = plan(task(), collected(*durations), known(durations), fleet=fleet(slots))

    mean = sum(durations.values()) / (slots * 4)
    assert all(shard.predicted is not None for shard in made.shards)
    assert max(shard.predicted.total_seconds() for shard in made.shards if shard.predicted) <= LONG_FACTOR * mean + 2
