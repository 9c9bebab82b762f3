from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.errors import InvalidRequest
from fleetest.common.suite.durations import MAX_DURATION, format_duration, parse_duration
from fleetest.common.suite.sizes import MAX_SIZE_BYTES, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1.5h", timedelta(minutes=90)),
        ("250ms", timedelta(milliseconds=250)),
        ("1m1ms", timedelta(minutes=1, milliseconds=1)),
        ("0s", timedelta()),
    ],
)
def test_a_duration_is_read(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "30", "s", "-5s", "5 m", "5M", "1m1h", "1s1s", "1h30", ".5h", "1e3s", "٣s", "31d", "999999999999d", "5s\n"],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(), max_value=MAX_DURATION))
def test_a_printed_duration_is_read_as_the_same(duration):
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=90), "1m30s"),
        (timedelta(days=1, hours=1), "1d1h"),
        (timedelta(milliseconds=1500), "1.5s"),
    ],
)
def test_a_duration_is_printed_short(duration, text):
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("512MiB", 512 << 20),
        ("2GB", 2 * 1000**3),
        ("1.5 KiB", 1536),
        ("2gib", 2 << 30),
        ("1TiB", 1 << 40),
        ("9007199254740993B", None),
    ],
)
def test_a_size_is_read(text, size_bytes):
    if size_bytes is None:
        with pytest.raises(InvalidRequest, match="is more than 1024TiB"):
            parse_size(text)
    else:
        assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "2", "2G", "2Gi", "GiB", "-1B", "1iB", "1e3B", "1_000B", "٣B", "1B\n"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InvalidRequest, match="512MiB"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=MAX_SIZE_BYTES))
def test_a_printed_size_is_read_as_the_same(size_bytes):
    assert parse_size(format_size(size_bytes)) == size_bytes


def test_a_size_is_printed_in_its_largest_whole_unit():
    assert [format_size(size) for size in (0, 1000, 1024, 1536, 3 << 30, 1 << 50)] == [
        "0B",
        "1000B",
        "1KiB",
        "1536B",
        "3GiB",
        "1024TiB",
    ]
