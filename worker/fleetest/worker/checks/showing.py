"""What a failed step shows: what it expected, its request, and the response; without secrets, and bounded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import httpx

from fleetest.common.masking import MASK, Masker
from fleetest.common.results import Assertion
from fleetest.worker.checks.exchange import Exchange
from fleetest.worker.checks.json_values import read_json, shown
from fleetest.worker.checks.session import Outcome

__all__ = ["Showing"]

_MAX_BODY: Final = 8_000
_MAX_HEADER: Final = 500
_MAX_MESSAGE: Final = 8_000
_MOST_HEADERS: Final = 50
_MOST_ASSERTIONS: Final = 500
_SENSITIVE: Final = re.compile(
    r"authorization|authentication|cookie|token|secret|password|credential|session|api-?_?key|(^|-)key$", re.IGNORECASE
)


class Showing:
    """
    Args:
        secrets: texts to be masked wherever they stand.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._masker = Masker(secrets)

    def assertions(self, outcome: Outcome) -> list[Assertion]:
        """Each of them, fit to be kept."""
        return [
            Assertion(
                name=_cut(self._masker.text(each.name), _MAX_HEADER),
                passed=each.passed,
                message=_cut(self._masker.text(each.message), _MAX_MESSAGE),
            )
            for each in outcome.assertions[:_MOST_ASSERTIONS]
        ]

    def failure(self, outcome: Outcome, before: Sequence[tuple[str, Outcome]]) -> str:
        """
        The whole story.

        Args:
            before: the earlier steps that failed, by name.
        """
        return self._masker.text("\n".join(_lines(outcome, before)))

    def summary(self, outcome: Outcome) -> str:
        """In one line."""
        first, *others = self.assertions(Outcome(assertions=outcome.failed))
        line = (first.message.splitlines() or [""])[0]
        more = f" (and {len(others)} more)" if others else ""
        return f"{first.name}: {line}{more}"


def _lines(outcome: Outcome, before: Sequence[tuple[str, Outcome]]) -> Iterator[str]:
    failed = outcome.failed
    yield f"{len(failed)} of {len(outcome.assertions)} assertions failed:"
    for each in failed[:_MOST_ASSERTIONS]:
        first, *rest = _cut(each.message, _MAX_MESSAGE).splitlines() or [""]
        yield f"  {each.name}: {first}"
        yield from (f"    {line}" for line in rest)
    for name, earlier in before:
        yield f"  before it, step '{name}' failed: {', '.join(each.name for each in earlier.failed)}"
    if outcome.exchange is not None:
        yield from _exchange_lines(outcome.exchange)


def _exchange_lines(exchange: Exchange) -> Iterator[str]:
    sent = exchange.sent
    yield ""
    yield "--- request"
    yield f"{sent.method} {_address(sent.url)}"
    yield from _headers(sent.headers)
    yield from _body(sent.body, sent.headers)
    yield f"--- response, after {exchange.elapsed.total_seconds() * 1000:.0f} ms"
    yield f"{exchange.protocol} {exchange.status} {exchange.reason}".rstrip()
    yield from _headers(exchange.headers)
    yield from _body(exchange.body, exchange.headers)


def _address(url: str) -> str:
    try:
        address = httpx.URL(url)
        query = [(name, MASK if _SENSITIVE.search(name) else value) for name, value in address.params.multi_items()]
        if any(value == MASK for _, value in query):
            url = f"{url.partition('?')[0]}?{'&'.join(f'{name}={value}' for name, value in query)}"
        return url.replace(address.userinfo.decode(), MASK) if address.userinfo else url
    except httpx.InvalidURL:
        return url


def _headers(headers: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, value in headers[:_MOST_HEADERS]:
        yield f"{name.lower()}: {MASK if _SENSITIVE.search(name) else _cut(value, _MAX_HEADER)}"
    if len(headers) > _MOST_HEADERS:
        yield f"… and {len(headers) - _MOST_HEADERS} headers more"


def _body(body: bytes, headers: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield ""
    if not body:
        return
    try:
        text = body.decode()
    except UnicodeDecodeError:
        kind = next((value for name, value in headers if name.lower() == "content-type"), "unknown content")
        text = body[:_MAX_BODY].decode("utf-8", "replace") if kind.startswith("text/") else ""
        if not text:
            yield f"({len(body)} bytes of {kind})"
            return
    if len(text) <= _MAX_BODY:
        with suppress(ValueError):
            text = shown(read_json(text), indent=2)
    yield from _cut(text, _MAX_BODY).splitlines()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most} characters more)"
