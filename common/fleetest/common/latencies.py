"""
Histograms of latencies that can be put together without loss, in the form of HdrHistogram.

Buckets and encoding are those of https://github.com/HdrHistogram/HdrHistogram (V2, compressed, base64), with three
significant digits from a microsecond to an hour: what generators record with its library is read here, and the other
way round. Here counts lie in a mapping, since a second has some hundred buckets of the 23,552; and what is read comes
from tests, so nothing in it is believed before it was bounded.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["HIGHEST_US", "SIGNIFICANT_DIGITS", "Latencies", "bucket_of", "decode_counts", "encode_counts"]

SIGNIFICANT_DIGITS: Final = 3
HIGHEST_US: Final = 3_600_000_000

_HALF_BITS: Final = 10  # half of the 2,048 linear steps of a bucket, which three digits need
_HALF: Final = 1 << _HALF_BITS
_BUCKETS: Final = 23_552
_OUTER: Final = struct.Struct(">II")
_HEADER: Final = struct.Struct(">IIIIQQd")
_OUTER_COOKIE: Final = 0x1C849304
_COOKIE: Final = 0x1C849303
_WORD_SIZE_BITS: Final = 0xF0
_ENCODED_WORD: Final = 0x10
_LONGEST_WORD: Final = 9
_MORE: Final = 0x80  # the mark of a byte that is not the last of its number
_MOST_BYTES: Final = _HEADER.size + _LONGEST_WORD * _BUCKETS
_MOST_TEXT: Final = 2 * _MOST_BYTES
_MOST_COUNTED: Final = 1 << 40


def bucket_of(microseconds: int) -> int:
    """The index of the bucket that counts a latency; one that is out of range counts as the nearest that is not."""
    value = min(max(microseconds, 0), HIGHEST_US)
    exponent = max(0, value.bit_length() - _HALF_BITS - 1)
    return (exponent << _HALF_BITS) + (value >> exponent)


def _lowest_of(bucket: int) -> tuple[int, int]:
    """The least value that a bucket counts, and how many there are."""
    exponent = max(0, (bucket >> _HALF_BITS) - 1)
    return (bucket - (exponent << _HALF_BITS)) << exponent, 1 << exponent


def encode_counts(counts: Mapping[int, int]) -> str:
    """Counts by bucket, in the form of HdrHistogram."""
    content = bytearray()
    expected = 0
    for bucket in sorted(counts):
        if bucket > expected:
            _put_word(content, expected - bucket)  # so many buckets are empty
        _put_word(content, counts[bucket])
        expected = bucket + 1
    cookie = _COOKIE | _ENCODED_WORD
    header = _HEADER.pack(cookie, len(content), 0, SIGNIFICANT_DIGITS, 1, HIGHEST_US, 1.0)
    payload = zlib.compress(header + content)
    return base64.b64encode(_OUTER.pack(_OUTER_COOKIE | _ENCODED_WORD, len(payload)) + payload).decode()


@lru_cache(maxsize=512)
def decode_counts(text: str) -> Mapping[int, int]:
    """
    Counts by bucket. Not to be changed.

    Raises:
        InvalidRequest: it is no histogram, or not one with our range and digits.
    """
    content = _content(text)
    counts: dict[int, int] = {}
    bucket = position = 0
    while position < len(content):
        byte = content[position]
        if byte < _MORE:  # nearly all are this short
            word, position = (byte >> 1) ^ -(byte & 1), position + 1
        else:
            word, position = _word(content, position)
        if word < 0:
            bucket -= word
            continue
        if word:
            counts[bucket] = word
        bucket += 1
    if bucket > _BUCKETS or sum(counts.values()) > _MOST_COUNTED:
        raise InvalidRequest("a histogram counts more than there can be")
    return counts


def _content(text: str) -> bytes:
    if len(text) > _MOST_TEXT:
        raise InvalidRequest(f"a histogram of {len(text)} characters is too large")
    try:
        encoded = base64.b64decode(text, validate=True)
        cookie, length = _OUTER.unpack_from(encoded)
        unpacking = zlib.decompressobj()
        whole = unpacking.decompress(encoded[_OUTER.size :], _MOST_BYTES + 1)
        inner, size, offset, digits, lowest, highest, ratio = _HEADER.unpack_from(whole)
    except (binascii.Error, ValueError, struct.error, zlib.error) as error:
        raise InvalidRequest(f"not a histogram: {error}") from error
    settings = (offset, digits, lowest, highest, ratio)
    fits = (
        (cookie & ~_WORD_SIZE_BITS, inner & ~_WORD_SIZE_BITS) == (_OUTER_COOKIE, _COOKIE)
        and settings == (0, SIGNIFICANT_DIGITS, 1, HIGHEST_US, 1.0)
        and length == len(encoded) - _OUTER.size
        and unpacking.eof
        and size == len(whole) - _HEADER.size
    )
    if not fits:
        raise InvalidRequest("not a histogram with three digits from a microsecond to an hour, or not a whole one")
    return whole[_HEADER.size :]


def _put_word(content: bytearray, value: int) -> None:
    """As a ZigZag LEB128 number of at most nine bytes, of which the ninth has no mark."""
    rest = (value << 1) ^ (value >> 63)
    for _ in range(_LONGEST_WORD - 1):
        if rest < _MORE:
            content.append(rest)
            return
        content.append(rest & 0x7F | 0x80)
        rest >>= 7
    content.append(rest & 0xFF)


def _word(content: bytes, position: int) -> tuple[int, int]:
    """A number, and where the next one begins."""
    value = shift = 0
    for number in range(_LONGEST_WORD):
        if position >= len(content):
            raise InvalidRequest("a histogram ends within a number")
        byte = content[position]
        position += 1
        if number == _LONGEST_WORD - 1:
            value |= byte << shift
            break
        value |= (byte & 0x7F) << shift
        if byte < _MORE:
            break
        shift += 7
    return (value >> 1) ^ -(value & 1), position


@dataclass(slots=True)
class Latencies:
    """Latencies of any number of requests."""

    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def add(self, counts: Mapping[int, int]) -> None:
        """Put other counts to these."""
        own = self.counts
        if own:
            known = own.get
            for bucket, count in counts.items():
                own[bucket] = known(bucket, 0) + count
        else:
            own.update(counts)
        self.total += sum(counts.values())

    def percentiles(self, wanted: Sequence[float]) -> Sequence[float]:
        """
        In seconds, in the order asked for; 0 when there are none.

        A percentile is the highest value that counts as equal to the first one below or at which so many of a hundred
        lie, as HdrHistogram has it.
        """
        ascending = sorted(self.counts)
        below = list(accumulate(map(self.counts.__getitem__, ascending)))
        found = []
        for percent in wanted if ascending else ():
            due = min(max(1, int(percent * self.total / 100 + 0.5)), self.total)
            lowest, size = _lowest_of(ascending[bisect_left(below, due)])
            found.append((lowest + size - 1) / 1e6)
        return found or [0.0 for _ in wanted]

    @property
    def mean(self) -> float:
        """In seconds; 0 when there are none."""
        whole = 0
        for bucket, count in self.counts.items():
            exponent = max(0, (bucket >> _HALF_BITS) - 1)
            lowest = (bucket - (exponent << _HALF_BITS)) << exponent
            whole += (2 * lowest + (1 << exponent) - 1) * count  # twice the middle
        return whole / 2 / self.total / 1e6 if self.total else 0.0

    @property
    def least(self) -> float:
        """In seconds; 0 when there are none."""
        return _lowest_of(min(self.counts))[0] / 1e6 if self.counts else 0.0

    @property
    def most(self) -> float:
        """In seconds; 0 when there are none."""
        return self.percentiles([100])[0]

    def encode(self) -> str:
        return encode_counts(self.counts)
