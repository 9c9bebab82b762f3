"""Thresholds of load tests, and histograms that can be put together."""

from __future__ import annotations

import base64
import random
import zlib

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetest.common.errors import InvalidRequest
from fleetest.common.latencies import HIGHEST_US, SIGNIFICANT_DIGITS, Latencies, bucket_of, decode_counts, encode_counts
from fleetest.common.load import Threshold, parse_threshold

LATENCIES = st.lists(st.one_of(st.integers(0, 5_000_000), st.integers(0, HIGHEST_US)), max_size=200)


def library(values: list[int]) -> HdrHistogram:
    histogram = HdrHistogram(1, HIGHEST_US, SIGNIFICANT_DIGITS)
    for value in values:
        histogram.record_value(value)
    return histogram


def ours(values: list[int]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add({bucket_of(value): 1})
    return latencies


@pytest.mark.parametrize(
    ("text", "metric", "limit", "shown"),
    [
        ("p95 < 300ms", "p95", 0.3, "p95 < 300ms"),
        (" p99.9<=1.5s ", "p99.9", 1.5, "p99.9 <= 1.5s"),
        ("mean<800us", "mean", 0.0008, "mean < 800us"),
        ("error_rate < 1%", "error_rate", 0.01, "error_rate < 1%"),
        ("error_rate <= 0.05%", "error_rate", 0.0005, "error_rate <= 0.05%"),
        ("throughput > 500/s", "throughput", 500.0, "throughput > 500/s"),
        ("throughput >= 39.5", "throughput", 39.5, "throughput >= 39.5/s"),
        ("requests >= 1000", "requests", 1000.0, "requests >= 1,000"),
    ],
)
def test_thresholds_are_read_as_people_write_them(text: str, metric: str, limit: float, shown: str) -> None:
    threshold = parse_threshold(text, request="buy")

    assert (threshold.metric, threshold.request) == (metric, "buy")
    assert threshold.limit == pytest.approx(limit)
    assert str(threshold) == f"buy: {shown}"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fast", "'fast' is not a threshold", "error_rate < 1%"),
        ("p95 < 300", "p95 is compared with a time, not '300'", "Write 300ms."),
        ("p95 < 2h", "p95 is compared with a time", "ms"),
        ("max < 4000s", "longer than any latency", ""),
        ("error_rate < 0.01", "error_rate is compared with a share", "Write it as 1%."),
        ("error_rate < 101%", "error_rate is compared with a share", "1%"),
        ("throughput > 5ms", "throughput is compared with a rate", "Write 5/s."),
        ("errors < 3%", "errors is compared with a number", ""),
        ("p101 < 1s", "nothing measured is called 'p101'", "There are p50"),
        ("latency == 1s", "is not a threshold", "As in"),
        ("p95 < " + "9" * 300 + "s", "is not a threshold", "As in"),
    ],
)
def test_what_is_no_threshold_is_refused_with_a_way_out(text: str, message: str, hint: str) -> None:
    with pytest.raises(InvalidRequest, match=message.replace("(", r"\(")) as caught:
        parse_threshold(text)

    assert hint in caught.value.hint


@given(st.one_of(st.text(max_size=300), st.from_regex(r"[a-z_0-9.]{1,9} ?[<>=]{1,2} ?[0-9.]{1,20} ?[a-z%/]{0,3}")))
def test_any_text_is_a_threshold_or_refused(text: str) -> None:
    try:
        threshold = parse_threshold(text)
    except InvalidRequest:
        return
    assert parse_threshold(str(threshold)).metric == threshold.metric


@settings(max_examples=5)  # the library's own take half a second each
@given(LATENCIES)
def test_histograms_are_those_of_the_library_both_ways(values: list[int]) -> None:
    theirs, mine = library(values), ours(values)

    assert decode_counts(theirs.encode().decode()) == mine.counts
    read = HdrHistogram.decode(mine.encode())
    assert [read.get_count_at_index(bucket) for bucket in sorted(mine.counts)] == [
        mine.counts[bucket] for bucket in sorted(mine.counts)
    ]
    if values:
        wanted = [1.0, 50.0, 95.0, 99.0, 99.9, 100.0]
        expected = theirs.get_percentile_to_value_dict(wanted)
        assert [round(value * 1e6) for value in mine.percentiles(wanted)] == [expected[each] for each in wanted]
        assert mine.mean == pytest.approx(theirs.get_mean_value() / 1e6, rel=0.001)
        assert mine.least * 1e6 == pytest.approx(min(values), rel=0.001)
        assert mine.most * 1e6 == pytest.approx(max(values), rel=0.001)


@given(st.lists(LATENCIES, max_size=5))
def test_to_put_parts_together_is_to_have_recorded_all_in_one(parts: list[list[int]]) -> None:
    whole = Latencies()
    for part in parts:
        whole.add(decode_counts(library(part).encode().decode()))

    assert whole == ours([value for part in parts for value in part])


def test_no_latencies_have_no_percentiles() -> None:
    none = Latencies()

    assert (none.percentiles([50, 99]), none.mean, none.least, none.most) == ([0.0, 0.0], 0.0, 0.0, 0.0)
    assert decode_counts(none.encode()) == {}


@given(st.one_of(st.text(max_size=200), st.binary(max_size=400).map(lambda raw: base64.b64encode(raw).decode())))
def test_garbage_is_no_histogram(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decode_counts(text)


@given(st.data())
def test_what_was_cut_or_changed_is_refused_or_harmless(data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(ours([random.Random(1).randrange(10**6) for _ in range(300)]).encode()))
    unpacked = bytearray(zlib.decompress(bytes(raw[8:])))
    for _ in range(data.draw(st.integers(1, 4))):
        unpacked[data.draw(st.integers(0, len(unpacked) - 1))] = data.draw(st.integers(0, 255))
    payload = zlib.compress(bytes(unpacked[: data.draw(st.integers(0, len(unpacked)))]))
    text = base64.b64encode(bytes(raw[:4]) + len(payload).to_bytes(4, "big") + payload).decode()
    try:
        counts = decode_counts(text)
    except InvalidRequest:
        return
    assert all(0 <= bucket < 23_552 and count > 0 for bucket, count in counts.items())


def test_what_unpacks_to_more_than_any_histogram_has_is_refused_before_it_is_unpacked() -> None:
    bomb = zlib.compress(bytes(20 << 20))
    text = base64.b64encode(b"\x1c\x84\x93\x14" + len(bomb).to_bytes(4, "big") + bomb).decode()

    with pytest.raises(InvalidRequest):
        decode_counts(text)
    with pytest.raises(InvalidRequest, match="too large"):
        decode_counts("A" * 10_000_000)


def test_a_threshold_knows_its_percentile_and_what_holds() -> None:
    threshold = Threshold(metric="p99.9", comparison="<=", limit=1.0)

    assert threshold.percentile == 99.9
    assert (threshold.holds(1.0), threshold.holds(1.1)) == (True, False)
    assert encode_counts({}) == Latencies().encode()
