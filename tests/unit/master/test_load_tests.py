"""Load tests told as stories: what generators measure is put together, judged, and may stop all of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from fleetest.common.latencies import bucket_of, decode_counts, encode_counts
from fleetest.common.load import LoadPlan, LoadSample, RequestSample, Threshold, parse_threshold
from fleetest.common.states import TaskState
from fleetest.common.tasks import OnLost, RunnerType, Task
from fleetest.master.load_records import record_of
from fleetest.master.runs.events import PerformanceMeasured, decode
from fleetest.master.runs.measuring import Measurement
from fleetest.master.runs.summary import summary_of
from tests.tools.story import Story

SECOND = timedelta(seconds=1)


def load_task(*thresholds: str | Threshold, abort: tuple[str, ...] = (), window: float = 2, **settings: Any) -> Task:
    plan = LoadPlan(
        thresholds=tuple(parse_threshold(each) if isinstance(each, str) else each for each in thresholds),
        abort=tuple(map(parse_threshold, abort)),
        abort_window=timedelta(seconds=window),
    )
    settings = {"shards": 2, "gang": OnLost.END, **settings}
    return Task(name="load", type="performance", runner=RunnerType.LOAD, command=("{}",), load=plan, **settings)


def histogram(*milliseconds: float) -> str:
    counts: dict[int, int] = {}
    for each in milliseconds:
        bucket = bucket_of(round(each * 1000))
        counts[bucket] = counts.get(bucket, 0) + 1
    return encode_counts(counts)


def sample(second: int, *milliseconds: float, errors: int = 0, name: str = "GET /", **settings: Any) -> LoadSample:
    requests = (RequestSample(name=name, errors=errors, histogram=histogram(*milliseconds)),) if milliseconds else ()
    values = {"length": SECOND, "users": 1, "arrivals": len(milliseconds), **settings}
    return LoadSample(second=second, requests=requests, **values)


def last(second: int, *milliseconds: float) -> LoadSample:
    return sample(second, *milliseconds, length=timedelta(), arrivals=0, last=True)


def begun(*thresholds: str | Threshold, **settings: Any) -> Story:
    story = Story(load_task(*thresholds, **settings))
    shards = [f"load#{index}" for index in range(story.task("load").task.shards or 1)]
    story.ask(lambda decider: [decider.start_attempt(each, f"w{each[-1]}", "i") for each in shards])
    for each in shards:
        token = story.token(each)
        story.ask(lambda decider, each=each, token=token: decider.attempt_running(each, token))
    return story


def tell(story: Story, generator: int, *samples: LoadSample) -> None:
    shard = f"load#{generator}"
    for each in samples:
        token = story.token(shard)
        story.ask(lambda decider, each=each, token=token: decider.load_sampled(shard, token, each))


def measured(story: Story) -> list[PerformanceMeasured]:
    return [event for commit in story.log for event in decode(commit) if isinstance(event, PerformanceMeasured)]


def messages(story: Story) -> dict[str, str]:
    events = [event for commit in story.log for event in decode(commit)]
    return {each.case_id: each.message for event in events for each in getattr(event, "results", ())}


def test_percentiles_are_of_all_latencies_and_never_averaged() -> None:
    story = begun("p95 < 150ms", "p50 < 15ms", "throughput > 49/s", "error_rate < 1%")

    tell(story, 0, sample(0, *[10] * 90), last(1))
    tell(story, 1, sample(0, *[1000] * 10), last(1))
    story.end("load#0")
    story.end("load#1")

    assert story.outcomes("load") == {
        "thresholds::requests > 0": "passed",
        "thresholds::p95 < 150ms": "failed",  # the mean of both p95 is 505 ms, and the quick one's alone 10 ms
        "thresholds::p50 < 15ms": "passed",
        "thresholds::throughput > 49/s": "passed",
        "thresholds::error_rate < 1%": "passed",
    }
    assert messages(story)["thresholds::p95 < 150ms"] == "it was 1s"
    assert messages(story)["thresholds::throughput > 49/s"] == "it was 100/s"
    assert story.state("load") is TaskState.FAILED


def test_what_is_shown_goes_over_ten_seconds_and_comes_when_all_have_told() -> None:
    story = begun()
    tell(story, 0, *[sample(second, 10, 10) for second in range(12)])
    assert measured(story) == []

    tell(story, 1, *[sample(second, 30, 30, errors=1) for second in range(12)])

    shown = measured(story)
    assert [each.second for each in shown] == list(range(1, 13))
    assert (shown[-1].window, shown[-1].throughput, shown[-1].error_rate) == (10 * SECOND, 4.0, 0.25)
    assert (shown[-1].users, shown[-1].offered) == (2, 4.0)
    assert shown[-1].p95.total_seconds() == pytest.approx(0.03, rel=0.001)


def test_what_ends_after_the_schedule_counts_for_latencies_and_not_for_throughput() -> None:
    story = begun("max < 1s")

    for generator in (0, 1):
        tell(story, generator, sample(0, *[10] * 5), sample(1, *[10] * 5), last(2, 2000))
        story.end(f"load#{generator}")

    (summary,) = summary_of(story.status).tasks
    whole = summary.load[-1]
    assert (whole.requests, whole.throughput, summary.load[0].request) == (22, 10.0, "GET /")
    assert story.outcomes("load")["thresholds::max < 1s"] == "failed"


def test_an_abort_threshold_stops_all_generators_and_the_cases_say_why() -> None:
    story = begun("p95 < 1s", abort=("error_rate < 50%", "p99 < 5s"))
    tell(story, 0, sample(0, 10, 10), sample(1, 10, 10, errors=2))
    tell(story, 1, sample(0, 10, 10, errors=2), sample(1, 10, 10, errors=2))

    assert sorted(shard for shard, _ in story.stopped) == ["load#0", "load#1"]
    for generator in (0, 1):
        tell(story, generator, last(2))
        story.end(f"load#{generator}", "cancelled")

    assert story.outcomes("load") == {
        "thresholds::requests > 0": "passed",
        "thresholds::p95 < 1s": "passed",
        "abort::error_rate < 50%": "failed",
        "abort::p99 < 5s": "passed",
    }
    assert messages(story)["abort::error_rate < 50%"] == (
        "all generators were stopped: error_rate < 50%: it was 75% over 2s"
    )
    assert (story.state("load"), story.task("load").reason) == (
        TaskState.FAILED,
        "error_rate < 50%: it was 75% over 2s",
    )


def test_a_lost_generator_makes_the_measurement_invalid() -> None:
    story = begun("p95 < 1s")
    tell(story, 0, sample(0, 10))
    tell(story, 1, sample(0, 10))

    story.end("load#1", "lost", "its worker is gone")

    assert [shard for shard, _ in story.stopped] == ["load#0"]
    story.end("load#0", "cancelled")
    assert (story.state("load"), story.task("load").reason) == (TaskState.ERRORED, "its worker is gone")
    assert story.outcomes("load") == {}


def test_what_was_measured_without_a_lost_generator_does_not_count_if_the_suite_says_so() -> None:
    story = begun("p95 < 1s", "requests >= 4", gang=OnLost.CONTINUE)
    tell(story, 1, sample(0, 10, 10))
    tell(story, 0, sample(0, 10, 10), sample(1, 3000), sample(2, 3000))

    story.end("load#1", "lost", "its worker is gone")
    tell(story, 0, sample(3, 3000), last(4))
    story.end("load#0")

    assert story.outcomes("load") == {
        "thresholds::requests > 0": "passed",
        "thresholds::p95 < 1s": "passed",
        "thresholds::requests >= 4": "passed",
    }
    assert "(4 s do not count, in which not all 2 generators measured)" in messages(story)["thresholds::p95 < 1s"]
    assert (story.state("load"), story.task("load").reason) == (TaskState.PASSED, "without 1 shard: its worker is gone")


def test_all_begin_again_with_nothing_measured_if_the_suite_says_so() -> None:
    story = begun(gang=OnLost.ABORT)
    tell(story, 0, sample(0, 10))
    tell(story, 1, sample(0, 10))

    story.end("load#1", "lost", "its worker is gone")
    story.end("load#0", "cancelled")

    assert sorted(story.waiting()) == ["load#0", "load#1"]
    story.ask(lambda decider: [decider.start_attempt(f"load#{each}", "w", "i") for each in (0, 1)])
    for each in (0, 1):
        token = story.token(f"load#{each}")
        story.ask(lambda decider, each=each, token=token: decider.attempt_running(f"load#{each}", token))
    assert story.task("load").measured == Measurement(generators=2)


def test_load_that_never_reached_anything_has_failed() -> None:
    story = begun("p95 < 1s", "error_rate < 1%")
    for generator in (0, 1):
        tell(story, generator, sample(0), last(1))
        story.end(f"load#{generator}")

    assert story.outcomes("load") == {
        "thresholds::requests > 0": "failed",
        "thresholds::p95 < 1s": "failed",
        "thresholds::error_rate < 1%": "passed",
    }
    assert messages(story)["thresholds::p95 < 1s"] == "no request was measured"


def test_a_threshold_of_a_request_that_nobody_made_says_which_there_were() -> None:
    story = begun(parse_threshold("p95 < 1s", request="GET /bookz"))

    for generator in (0, 1):
        tell(story, generator, sample(0, 10, name="GET /books"), last(1))
        story.end(f"load#{generator}")

    assert messages(story)["thresholds::GET /bookz: p95 < 1s"] == (
        "no request 'GET /bookz' was made; there were GET /books"
    )


def test_a_sample_that_cannot_be_read_ends_the_load_test_as_errored() -> None:
    story = begun("p95 < 1s")
    garbage = RequestSample(name="GET /", errors=0, histogram="HISTFAAA")

    tell(story, 0, LoadSample(second=0, length=SECOND, requests=(garbage,)))
    for generator in (0, 1):
        story.end(f"load#{generator}", "cancelled")

    assert story.state("load") is TaskState.ERRORED
    assert story.task("load").reason.startswith("load#0 sent a sample that cannot be read: ")


def test_a_user_who_cancels_gets_no_verdict() -> None:
    story = begun("p95 < 1s")
    tell(story, 0, sample(0, 10), last(1))
    tell(story, 1, sample(0, 10), last(1))

    story.cancel()
    for generator in (0, 1):
        story.end(f"load#{generator}", "cancelled")

    assert (story.state("load"), story.outcomes("load")) == (TaskState.CANCELLED, {})


def test_seconds_that_come_twice_or_late_count_once() -> None:
    measurement = Measurement(generators=1)

    for each in (sample(0, 10), sample(0, 10), sample(1, 20), sample(0, 10), last(2), sample(3, 10)):
        measurement.take(0, each)

    assert (measurement.whole.count(), measurement.complete, measurement.told) == (2, True, 3)


def test_the_record_has_figures_and_the_histograms_that_they_come_from() -> None:
    measurement = Measurement(generators=1)
    measurement.take(0, sample(0, *[10] * 98, 500, 500, errors=1, name="buy", lag=timedelta(milliseconds=7)))

    record = json.loads(json.dumps(record_of("load", measurement)))

    assert (record["seconds"], record["arrivals"], record["longest_lag_ms"]) == (1.0, 100, 7.0)
    buy = record["requests"]["buy"]
    assert (buy["requests"], buy["errors"], buy["throughput_per_second"]) == (100, 1, 100.0)
    assert buy["p95_ms"] == pytest.approx(10, rel=0.001)
    assert buy["p99_ms"] == pytest.approx(500, rel=0.001)
    assert sum(decode_counts(buy["histogram"]).values()) == 100
    assert record["all"]["histogram"] == buy["histogram"]
