"""Gangs begin together, and one that is broken begins again as a whole: told as the stories of a run."""

from __future__ import annotations

from typing import Any

import pytest

from fleetest.common.states import RunState, TaskState
from fleetest.common.tasks import OnLost
from fleetest.master.runs.events import GangBroken, GangStarted, decode
from fleetest.master.runs.gangs import GANG_NOTICE
from tests.tools.story import Story, command_task

MEMBERS = ("lint#0", "lint#1", "lint#2")


def a_gang(on_lost: OnLost = OnLost.ABORT, **settings: Any) -> Story:
    return Story(command_task(shards=3, gang=on_lost, **settings))


def leased(story: Story) -> None:
    """All are claimed in one commit."""
    story.ask(lambda decider: [decider.start_attempt(each, f"w{number}", "i") for number, each in enumerate(MEMBERS)])


def ready(story: Story, *shard_ids: str) -> None:
    for shard_id in shard_ids:
        token = story.token(shard_id)
        story.ask(lambda decider, shard_id=shard_id, token=token: decider.attempt_running(shard_id, token))


def begun(on_lost: OnLost = OnLost.ABORT) -> Story:
    story = a_gang(on_lost)
    leased(story)
    ready(story, *MEMBERS)
    return story


def events(story: Story, kind: type) -> list[Any]:
    return [event for commit in story.log for event in decode(commit) if isinstance(event, kind)]


def test_a_gang_begins_once_all_of_it_is_ready() -> None:
    story = a_gang()
    leased(story)
    ready(story, "lint#0", "lint#2")
    assert events(story, GangStarted) == []

    ready(story, "lint#1", "lint#1")

    [started] = events(story, GangStarted)
    assert started.start_at - started.at == GANG_NOTICE
    assert story.task("lint").gang_start == started.start_at


@pytest.mark.parametrize("on_lost", OnLost)
@pytest.mark.parametrize("verdict", ["lost", "errored"])
def test_before_it_begins_a_lost_shard_makes_all_of_it_begin_again(on_lost: OnLost, verdict: str) -> None:
    story = a_gang(on_lost)
    leased(story)
    ready(story, "lint#0")

    story.end("lint#1", verdict, "its worker is gone")

    assert [shard_id for shard_id, _ in story.stopped] == ["lint#0", "lint#2"]
    assert not story.task("lint").may_be_queued
    story.end("lint#0", "cancelled")
    story.end("lint#2", "completed")
    assert story.task("lint").may_be_queued
    assert sorted(story.waiting()) == list(MEMBERS)
    assert story.task("lint").gang_break is None

    leased(story)
    ready(story, *MEMBERS)
    for shard_id in MEMBERS:
        story.report(shard_id, **{f"lint [{shard_id[-1]}]": "passed"})
        story.end(shard_id)
    assert story.state("lint") is TaskState.PASSED


def test_a_declined_shard_makes_all_of_it_begin_again() -> None:
    story = a_gang()
    leased(story)
    token = story.token("lint#1")

    story.ask(lambda decider: decider.attempt_declined("lint#1", token, "no slot"))

    assert len(events(story, GangBroken)) == 1
    assert [shard_id for shard_id, _ in story.stopped] == ["lint#0", "lint#2"]


def test_after_it_began_a_lost_shard_aborts_it_or_not_as_the_task_says() -> None:
    aborting, going_on = begun(OnLost.ABORT), begun(OnLost.CONTINUE)
    for story in (aborting, going_on):
        story.end("lint#1", "lost", "its worker is gone")

    assert [shard_id for shard_id, _ in aborting.stopped] == ["lint#0", "lint#2"]
    assert going_on.stopped == []
    for shard_id in ("lint#0", "lint#2"):
        going_on.end(shard_id)
    assert going_on.state("lint") is TaskState.PASSED
    assert going_on.task("lint").reason == "without 1 shard: its worker is gone"
    assert going_on.run is RunState.PASSED


def test_a_gang_that_loses_all_of_its_shards_is_errored() -> None:
    story = begun(OnLost.CONTINUE)

    for shard_id in MEMBERS:
        story.end(shard_id, "lost", "its worker is gone")

    assert story.state("lint") is TaskState.ERRORED


def test_a_gang_that_is_broken_again_and_again_is_errored() -> None:
    story = a_gang()
    for _ in range(4):
        leased(story)
        story.end("lint#1", "lost", "its worker is gone")
        for shard_id in story.live():
            story.end(shard_id, "cancelled")

    assert story.state("lint") is TaskState.ERRORED
    assert story.task("lint").reason == "its worker is gone"


def test_a_shard_that_never_gets_ready_ends_the_gang() -> None:
    story = a_gang()
    leased(story)
    ready(story, "lint#0", "lint#1")

    story.end("lint#2", "timed_out", "start: its tests did not start")

    assert [shard_id for shard_id, _ in story.stopped] == ["lint#0", "lint#1"]
    for shard_id in story.live():
        story.end(shard_id, "cancelled")
    assert story.state("lint") is TaskState.ERRORED


def test_a_failed_shard_of_a_gang_is_not_repeated_by_itself() -> None:
    story = Story(command_task(shards=3, gang=OnLost.ABORT, retries=2))
    leased(story)
    ready(story, *MEMBERS)

    for shard_id in MEMBERS:
        story.report(shard_id, lint="failed" if shard_id == "lint#1" else "passed")
        story.end(shard_id)

    assert story.state("lint") is TaskState.FAILED


def test_a_gang_that_is_cancelled_while_it_is_broken_ends() -> None:
    story = a_gang()
    leased(story)
    story.end("lint#1", "lost")

    story.cancel()
    for shard_id in story.live():
        story.end(shard_id, "cancelled")

    assert story.state("lint") is TaskState.CANCELLED
