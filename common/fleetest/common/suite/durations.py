"""Durations as people write them: `30s`, `5m`, `1h30m`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["DURATION_PATTERN", "MAX_DURATION", "format_duration", "parse_duration"]

MAX_DURATION: Final = timedelta(days=30)

_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_NUMBER: Final = r"\d{1,12}(?:\.\d{1,6})?"
_PART: Final = re.compile(rf"({_NUMBER})(ms|[dhms])", re.ASCII)

DURATION_PATTERN: Final = "^" + "".join(rf"({_NUMBER}{unit})?" for unit in _UNITS) + "$"
"""What `parse_duration` reads, for a JSON Schema; larger units come first, each at most once."""

_WHOLE: Final = re.compile(DURATION_PATTERN, re.ASCII)


def parse_duration(text: str, *, longest: timedelta = MAX_DURATION) -> timedelta:
    """
    Read a duration, to the microsecond.

    Raises:
        InvalidRequest: it isn't one, or is longer than `longest`.
    """
    if not text or not _WHOLE.fullmatch(text):
        hint = f"Write the unit: {text}s or {text}m." if text.isdecimal() else "Write it as in 30s, 5m or 1h30m."
        raise InvalidRequest(f"'{text[:100]}' is not a duration", hint=hint)
    # Compared in seconds first: a timedelta of a trillion days cannot be made.
    seconds = sum(float(number) * _UNITS[unit].total_seconds() for number, unit in _PART.findall(text))
    if seconds > longest.total_seconds():
        raise InvalidRequest(f"{text} is longer than {format_duration(longest)}")
    return sum((float(number) * _UNITS[unit] for number, unit in _PART.findall(text)), timedelta())


def format_duration(duration: timedelta) -> str:
    """
    The shortest text that `parse_duration` reads as this duration, in days, hours, minutes and seconds.

    Args:
        duration: not negative.
    """
    minutes, rest = divmod(duration, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    text = "".join(f"{number}{unit}" for number, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if number)
    if rest or not text:
        text += f"{rest.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    return text
