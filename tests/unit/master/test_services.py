"""Tasks that serve others: when those may start, and where; when a service ends, and what its end means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleetest.common.errors import WrongState
from fleetest.common.states import RunState, TaskState
from fleetest.common.tasks import Network, Probe, Resources, Service, When
from fleetest.master.runs.book import queue_entries
from fleetest.master.runs.environment import environment_key
from tests.tools.story import Story, command_task, need, pytest_task, result, service_task, submitted

READY = When.READY
ADDRESS = {"SHOP_URL": "http://127.0.0.1:8080"}


def becomes_ready(story: Story, shard_id: str = "shop#0") -> None:
    token = story.token(shard_id)
    story.ask(lambda decider: decider.attempt_running(shard_id, token, ADDRESS))


@pytest.fixture
def story():
    return Story(service_task(), command_task("smoke", needs=(need("shop", READY),)))


def test_who_needs_a_service_waits_until_it_is_ready(story):
    story.start("shop#0")

    assert story.state("smoke") is TaskState.BLOCKED
    story.queued.clear()
    becomes_ready(story)

    assert story.state("smoke") is TaskState.QUEUED
    assert story.queued == ["smoke#0"]


def test_who_needs_a_service_is_queued_for_its_worker_alone_and_told_where_it_is(story):
    story.start("shop#0", "w7")
    becomes_ready(story)

    smoke = story.task("smoke")
    [entry] = queue_entries(story.status, [smoke.shards["smoke#0"]])

    assert entry.requirements == {"fleetest.worker": "w7"}
    assert story.status.as_served(smoke).env == ADDRESS
    with pytest.raises(WrongState, match="not on w1"):
        story.start("smoke#0", "w1")


def test_a_service_is_stopped_when_nobody_needs_it_any_more_and_has_passed(story):
    story.start("shop#0")
    becomes_ready(story)
    story.start("smoke#0")
    story.report("smoke#0", smoke="passed")

    story.end("smoke#0")

    assert story.stopped == [("shop#0", False)]
    story.end("shop#0", "cancelled")
    assert story.state("shop") is TaskState.PASSED
    assert story.run is RunState.PASSED


def test_a_service_that_dies_ends_those_that_need_it():
    story = Story(
        service_task(),
        command_task("runs", needs=(need("shop", READY),)),
        command_task("waits", needs=(need("shop", READY),)),
        command_task("later", needs=(need("shop", READY), need("runs"))),
    )
    story.start("shop#0")
    becomes_ready(story)
    story.start("runs#0")

    story.ask(lambda decider: decider.cases_finished("shop#0", story.token("shop#0"), [result("shop", "failed")]))
    story.end("shop#0")

    assert story.state("shop") is TaskState.FAILED
    assert story.state("waits") is TaskState.SKIPPED
    assert story.state("later") is TaskState.SKIPPED
    assert story.stopped == [("runs#0", False)]
    story.end("runs#0", "cancelled")
    assert story.state("runs") is TaskState.ERRORED
    assert story.task("runs").reason == "needs shop ready, which failed"


def test_a_service_whose_worker_is_lost_starts_elsewhere_and_unfinished_tasks_follow():
    story = Story(service_task(), pytest_task("unit", shards=2, needs=(need("shop", READY),)))
    story.start("shop#0")
    becomes_ready(story)
    story.plans("unit", "a::a", "b::b")
    story.start("unit#0")
    story.report("unit#0", **{"a::a": "passed"})
    story.end("unit#0")
    story.start("unit#1")

    story.end("unit#1", "lost")
    story.end("shop#0", "lost")

    assert not story.status.may_be_queued(story.task("unit"))
    story.start("shop#0", "w2")
    story.queued.clear()
    becomes_ready(story)
    assert story.queued == ["unit#1"]
    story.start("unit#1", "w2")
    story.report("unit#1", **{"b::b": "passed"})
    story.end("unit#1")
    story.end("shop#0", "cancelled")
    assert story.run is RunState.PASSED


def test_a_run_that_is_cancelled_stops_its_services_last(story):
    story.start("shop#0")
    becomes_ready(story)
    story.start("smoke#0")

    story.cancel()

    assert story.stopped == [("smoke#0", False)]
    story.end("smoke#0", "cancelled")
    assert story.stopped[1:] == [("shop#0", False)]
    story.end("shop#0", "cancelled")
    assert story.state("shop") is TaskState.PASSED
    assert story.run is RunState.CANCELLED


def test_a_run_that_is_cancelled_before_its_service_is_ready_ends_both(story):
    story.start("shop#0")

    story.cancel()
    story.end("shop#0", "lost")

    assert story.state("shop") is TaskState.CANCELLED
    assert story.state("smoke") is TaskState.CANCELLED


def test_a_service_that_nobody_needs_in_the_end_is_not_started():
    story = Story(
        command_task("build"), service_task(needs=(need("build"),)), command_task("smoke", needs=(need("shop", READY),))
    )

    story.cancel("smoke")

    assert story.state("shop") is TaskState.SKIPPED


def test_services_that_need_one_another_end_in_the_opposite_order():
    story = Story(
        service_task("db"),
        service_task("shop", needs=(need("db", READY),)),
        command_task("t", needs=(need("shop", READY),)),
    )
    story.start("db#0")
    becomes_ready(story, "db#0")
    story.start("shop#0")
    becomes_ready(story)

    story.runs("t#0", result("t"))

    assert story.stopped == [("shop#0", False)]
    story.end("shop#0", "cancelled")
    assert story.stopped[1:] == [("db#0", False)]
    story.end("db#0", "cancelled")
    assert story.run is RunState.PASSED


def test_the_first_service_asks_for_a_worker_that_can_run_all_of_its_group():
    cores = {
        name: Resources(cpu_millis=millis) for name, millis in {"db": 100, "shop": 200, "t": 1000, "u": 500}.items()
    }
    story = Story(
        service_task("db", resources=cores["db"]),
        service_task("shop", resources=cores["shop"], needs=(need("db", READY),)),
        command_task("t", resources=cores["t"], needs=(need("shop", READY),), requirements={"browser": "chromium"}),
        command_task("u", resources=cores["u"], needs=(need("db", READY),)),
    )

    [entry] = queue_entries(story.status, [story.task("db").shards["db#0"]])

    assert entry.packed == entry.resources == Resources(cpu_millis=1300)
    assert entry.requirements == {"browser": "chromium"}


def published(name: str = "shop", **settings):
    service = Service(ready=Probe(tcp=True), publish={"": 0})
    return replace(service_task(name, **settings), service=service)


PUBLISHED = {**ADDRESS, "SHOP_PUBLISHED_URL": "http://192.0.2.7:8080"}


def test_who_needs_a_published_service_runs_anywhere_and_is_told_where_it_is_published():
    story = Story(published(), command_task("smoke", needs=(need("shop", READY),)))
    story.start("shop#0", "w7")
    token = story.token("shop#0")
    story.ask(lambda decider: decider.attempt_running("shop#0", token, PUBLISHED))

    smoke = story.task("smoke")
    [entry] = queue_entries(story.status, [smoke.shards["smoke#0"]])
    story.start("smoke#0", "w1")

    assert entry.requirements == {}
    assert story.status.as_served(smoke).env["SHOP_URL"] == "http://192.0.2.7:8080"
    assert story.status.network_of(smoke) == ""


def test_who_is_shut_in_follows_even_a_published_service_and_both_are_in_their_runs_network():
    story = Story(
        published(image="shop"),
        command_task("smoke", needs=(need("shop", READY),), image="tests", network=Network.NONE),
    )
    story.start("shop#0", "w7")
    token = story.token("shop#0")
    story.ask(lambda decider: decider.attempt_running("shop#0", token, PUBLISHED))

    shop, smoke = story.task("shop"), story.task("smoke")

    [entry] = queue_entries(story.status, [smoke.shards["smoke#0"]])
    assert entry.requirements["fleetest.worker"] == "w7"
    assert story.status.as_served(smoke).env == PUBLISHED
    assert story.status.network_of(shop) == story.status.network_of(smoke) == story.status.run_id


def test_containers_of_two_runs_that_find_a_service_by_the_same_name_share_no_environment():
    suite = (service_task(image="shop"), command_task("smoke", needs=(need("shop", READY),), image="tests"))
    keys = {environment_key(run_id, submitted(*suite), task) for run_id in ("r1", "r2") for task in suite}

    assert len(keys) == 4
