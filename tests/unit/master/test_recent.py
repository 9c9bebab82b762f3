from __future__ import annotations

from datetime import UTC, datetime

from fleetest.master.runs.events import Event, TaskQueued, encode
from fleetest.master.runs.recent import Recent
from fleetest.master.store.ports import Commit

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def queued(position: int, *, run_id: str = "a", name: str = "lint") -> tuple[Commit, tuple[Event, ...]]:
    events = (TaskQueued(at=NOW, task_id=name),)
    return Commit(run_id=run_id, position=position, at=NOW, events=encode(events)), events


def test_each_commit_takes_its_form_once_for_all_followers() -> None:
    made: list[int] = []

    def form(commit: Commit, events: tuple[Event, ...]) -> str:
        made.append(commit.position)
        return f"{commit.position}: {len(events)}"

    recent = Recent(form)

    with recent.follow("a"), recent.follow("a"):
        recent.add(*queued(1))
        recent.add(*queued(2))
        first, second = recent.after("a", 0), recent.after("a", 1)

    assert first == ["1: 1", "2: 1"]
    assert second == ["2: 1"]
    assert made == [1, 2]


def test_a_gap_that_another_master_fills_is_left_to_the_store() -> None:
    recent = Recent(lambda commit, _: commit.position)

    with recent.follow("a"):
        recent.add(*queued(1))
        recent.add(*queued(3))

        assert recent.after("a", 0) == [1]
        assert recent.after("a", 1) == []
        assert recent.after("a", 2) == [3]


def test_a_run_that_has_just_begun_is_remembered_for_who_is_about_to_follow_it() -> None:
    recent = Recent(lambda commit, _: commit.position)
    recent.add(*queued(1))
    recent.add(*queued(2))
    recent.add(*queued(1, run_id="large", name="x" * (1 << 20)))
    for number in range(64):
        recent.add(*queued(1, run_id=f"newer {number}"))

    with recent.follow("newer 63"), recent.follow("large"), recent.follow("a"):
        assert recent.after("newer 63", 0) == [1]
        assert recent.after("large", 0) == recent.after("a", 0) == []

    assert not recent.after("newer 63", 0)


def test_only_followed_runs_are_remembered_and_only_so_much_of_them() -> None:
    recent = Recent(lambda commit, _: commit.position)
    recent.add(*queued(2))

    with recent.follow("a"):
        assert recent.after("a", 1) == []
        for position in range(2, 10):
            recent.add(*queued(position, name="x" * (1 << 20)))
        assert recent.after("a", 2) == []
        assert 0 < len(recent.after("a", 6)) < 4

    with recent.follow("a"):
        assert recent.after("a", 8) == []
