"""
Makes results of what a report says: texts of bounded length, durations and times that make sense.

Nobody vouches for a report. Its numbers may be negative, infinite or no numbers at all, its times in the far future,
and any of its texts as long as the report.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from itertools import islice
from typing import Final

from fleetest.common.limits import MAX_ASSERTIONS, MAX_RESULT_TEXT_BYTES
from fleetest.common.results import Assertion, CaseResult
from fleetest.common.states import Outcome

__all__ = ["BoundedText", "bounded", "bounded_case", "finite", "instant", "milliseconds", "seconds", "whole_number"]

_MAX_NAME_BYTES: Final = 1000
"""Of a case's id, and of a file's name: they are keys of what is kept for long."""

_MAX_PROPERTIES: Final = 200
_MAX_PROPERTIES_BYTES: Final = MAX_RESULT_TEXT_BYTES
_MAX_PROPERTY_BYTES: Final = 4096
_CUT: Final = "\n[... cut out ...]\n"
_LONGEST_SECONDS: Final = 10**9
_LARGEST_LINE: Final = 2**31 - 1
_NOT_PRINTED: Final = re.compile(r"[\x00-\x20\x7f\u2028\u2029]+")
_DECIMAL: Final = re.compile(r"\d+(\.\d*)?([eE][-+]?\d+)?|\.\d+", re.ASCII)

_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_AHEAD: Final = timedelta(days=1)
"""How far ahead of ours the clock of another machine may be."""


class BoundedText:
    """Text in pieces, of which the beginning and the end are kept."""

    def __init__(self) -> None:
        self._head: list[str] = []
        self._room = MAX_RESULT_TEXT_BYTES
        self._tail: list[str] = []
        self._tail_length = 0

    def __bool__(self) -> bool:
        return bool(self._head)

    def __str__(self) -> str:
        return "".join(self._head) + "".join(self._tail)

    def add(self, text: str) -> None:
        """Append, or forget something of the middle."""
        if self._room > 0:
            self._head.append(text[: self._room])
            text, self._room = text[self._room :], self._room - len(text)
        if text:
            self._tail.append(text)
            self._tail_length += len(text)
            if self._tail_length > 2 * MAX_RESULT_TEXT_BYTES:
                self._tail = ["".join(self._tail)[-MAX_RESULT_TEXT_BYTES:]]
                self._tail_length = MAX_RESULT_TEXT_BYTES


def bounded(text: str, most_bytes: int = MAX_RESULT_TEXT_BYTES) -> str:
    """The text in valid UTF-8; of one that is too long the middle is cut out."""
    if len(text) * 4 <= most_bytes and text.isascii():
        return text
    content = text.encode("utf-8", "backslashreplace")
    if len(content) <= most_bytes:
        return content.decode()
    half = max(0, most_bytes - len(_CUT)) // 2
    return content[:half].decode(errors="ignore") + _CUT + content[-half:].decode(errors="ignore")


def bounded_case(
    *,
    case_id: str,
    outcome: Outcome,
    duration: timedelta = timedelta(),
    started_at: datetime | None = None,
    message: str = "",
    details: str = "",
    stdout: str = "",
    stderr: str = "",
    log: str = "",
    file: str = "",
    line: int = 0,
    properties: Mapping[str, str] | None = None,
    assertions: Iterable[Assertion] = (),
) -> CaseResult:
    """A result whose id is one line, whose message is the first line of `message` that is not blank, and so on."""
    first_line = next((each.strip() for each in message.splitlines() if each.strip()), "")
    texts = {"message": first_line, "details": details, "stdout": stdout, "stderr": stderr, "log": log}
    within = {key: bounded(text) for key, text in texts.items()}
    return CaseResult(
        case_id=_name(case_id) or "unnamed",
        outcome=outcome,
        duration=duration,
        started_at=started_at,
        file=_name(file),
        line=line if 0 < line <= _LARGEST_LINE else 0,
        truncated=any(len(text) != len(within[key]) for key, text in texts.items()),
        properties=_properties((properties or {}).items()),
        message=within["message"],
        details=within["details"],
        stdout=within["stdout"],
        stderr=within["stderr"],
        log=within["log"],
        assertions=tuple(_assertions(assertions)),
    )


def _assertions(assertions: Iterable[Assertion]) -> Iterator[Assertion]:
    """As many as there is room for."""
    room = MAX_RESULT_TEXT_BYTES
    for each in islice(assertions, MAX_ASSERTIONS):
        name, message = bounded(each.name, _MAX_NAME_BYTES), bounded(each.message, _MAX_PROPERTY_BYTES)
        room -= len(name.encode()) + len(message.encode())
        if room < 0:
            return
        yield Assertion(name=name, passed=each.passed, message=message)


def seconds(value: object) -> timedelta:
    """
    A number of seconds, or text such as `1.5`, `1,5`, or with separated thousands `1,234.5`; what is neither, and what
    is negative or longer than decades, is no time at all.
    """
    if isinstance(value, str):
        cleaned = value.strip().replace(" ", "")
        cleaned = cleaned.replace(",", "") if "." in cleaned else cleaned.replace(",", ".")
        number = float(cleaned) if len(cleaned) < 100 and _DECIMAL.fullmatch(cleaned) else 0.0  # noqa: PLR2004
    else:
        number = finite(value) or 0.0
    return timedelta(seconds=number) if 0 < number < _LONGEST_SECONDS else timedelta()


def milliseconds(value: object) -> timedelta:
    """As `seconds`, of thousandths."""
    number = finite(value)
    return seconds(number / 1000) if number is not None else timedelta()


def instant(value: object) -> datetime | None:
    """
    A time in ISO 8601, or milliseconds since 1970; one without a zone is this machine's. `None` for what is no time,
    for the last century, and for what is yet to come.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip()).astimezone(UTC)
        elif (number := finite(value)) is not None:
            moment = datetime.fromtimestamp(number / 1000, UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return moment if _EARLIEST <= moment <= datetime.now(UTC) + _AHEAD else None


def whole_number(value: object) -> int:
    """A line's number, say; 0 for what is none."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0  # noqa: PLR2004
    return value if isinstance(value, int) and 0 <= value <= _LARGEST_LINE else 0


def finite(value: object) -> float | None:
    """A number that a float can hold; `None` for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _name(text: str) -> str:
    """One line, and no longer than a key may be; two long ones that differ stay different."""
    line = _NOT_PRINTED.sub(" ", text).strip()
    content = line.encode("utf-8", "backslashreplace")
    if len(content) <= _MAX_NAME_BYTES:
        return content.decode()
    return f"{content[: _MAX_NAME_BYTES - 20].decode(errors='ignore')}... {blake2b(content, digest_size=8).hexdigest()}"


def _properties(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    kept: dict[str, str] = {}
    size_bytes = 0
    for key, value in items:
        name, text = _name(key), bounded(value, _MAX_PROPERTY_BYTES)
        size_bytes += len(name.encode()) + len(text.encode())
        if size_bytes > _MAX_PROPERTIES_BYTES or len(kept) >= _MAX_PROPERTIES:
            break
        if name:
            kept[name] = text
    return kept
