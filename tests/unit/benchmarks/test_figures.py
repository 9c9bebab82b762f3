from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.core.bars import bars
from benchmarks.core.figures import BEST, OURS, Aim, Better, Figure, Side
from benchmarks.core.results import Result, read_results, write_result
from benchmarks.core.rounds import in_turns, side
from benchmarks.core.table import table
from benchmarks.page import write_page
from benchmarks.profile import by_function


def figure(*, ours=(3.0, 30.0, 3.0), peers=None, better=Better.HIGHER, aims=()) -> Figure:
    peers = {"slow": (1.0, 10.0, 1.0), "good": (2.0, 20.0, 1.5)} if peers is None else peers
    return Figure(
        name="work",
        unit="tasks/s",
        better=better,
        ours=Side(name=OURS, samples=ours),
        peers=tuple(Side(name=name, samples=samples) for name, samples in peers.items()),
        aims=aims,
    )


async def test_sides_take_turns_after_a_warm_up_that_does_not_count():
    order = []

    def measured(name):
        async def measure():
            order.append(name)
            return {"seconds": float(len(order))}

        return measure

    rounds = await in_turns({"a": measured("a"), "b": measured("b")}, rounds=2)

    assert order == ["a", "b"] * 3
    assert side("a", "seconds", rounds).samples == (3.0, 5.0)


async def test_no_round_begins_for_which_no_time_is_left_but_the_first():
    async def measure():
        return {"seconds": 1.0}

    rounds = await in_turns({"a": measure}, rounds=5, seconds=0, warm_up=False)

    assert side("a", "seconds", rounds).samples == (1.0,)


def test_ratio_is_taken_round_by_round_so_that_drift_does_not_count():
    drifting = figure(ours=(3.0, 30.0, 300.0), peers={"peer": (2.0, 20.0, 200.0)})

    assert drifting.ratio(drifting.peers[0]) == 1.5


@pytest.mark.parametrize(
    ("aim", "better", "reached"),
    [
        (Aim(limit=1.5, against=BEST), Better.HIGHER, True),
        (Aim(limit=3, against="slow"), Better.HIGHER, True),
        (Aim(limit=3, against=BEST), Better.HIGHER, False),
        (Aim(limit=2, against="slow"), Better.LOWER, False),
        (Aim(limit=4), Better.LOWER, True),
    ],
)
def test_aim_is_judged_against_the_best_peer_a_named_one_or_a_number(aim, better, reached):
    assert figure(better=better).reached(aim) is reached


def test_best_peer_is_the_least_where_less_is_better():
    assert figure(better=Better.LOWER).best.name == "slow"


def test_aim_is_not_judged_where_the_peer_is_not_there():
    alone = figure(peers={"peer": ()})

    assert alone.reached(Aim(limit=1, against="peer")) is None
    assert alone.reached(Aim(limit=1, against=BEST)) is None


def test_page_says_what_was_measured_and_why_something_was_not(tmp_path):
    missing = Side(name="absent", missing="there is no Docker Engine")
    shown = figure(aims=(Aim(limit=3, against=BEST),))
    shown = Figure(**{name: getattr(shown, name) for name in shown.__slots__} | {"peers": (*shown.peers, missing)})
    result = Result(
        row="noop",
        title="Work.",
        began="2026-01-01T00:00:00+00:00",
        seconds=1.0,
        quick=False,
        rounds=3,
        load=0.1,
        machine={"cores": "2"},
        versions={"Python": "3.11"},
        figures=[shown],
    )
    write_result(result, tmp_path / "results")
    docs = tmp_path / "docs"
    docs.mkdir()

    write_page(read_results(tmp_path / "results", ["noop", "unmeasured"]), docs)

    page = (docs / "benchmarks.md").read_text()
    assert "| work | 3 tasks/s | 2 tasks/s (good) | ≥ 3 × the best | not yet |" in page
    assert "| absent | – | – | – | there is no Docker Engine |" in page
    assert "(benchmarks/noop-1.svg)" in page
    assert ET.parse(docs / "benchmarks" / "noop-1.svg").getroot().get("viewBox")


def test_table_and_bars_show_every_side():
    drawn = figure()

    lines = "\n".join(table(drawn))

    for each in drawn.sides:
        assert each.name in lines
        assert each.name in bars(drawn)


def test_profile_counts_a_recursive_function_once_a_sample():
    total, alone, whole = by_function("main;walk;walk 3\nmain;stop 1\n")

    assert total == 4
    assert alone == {"walk": 3, "stop": 1}
    assert whole == {"main": 4, "walk": 3, "stop": 1}
