"""A request sent, and what came back."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, TypeVar

import httpx

from fleetest.common.suite.durations import format_duration
from fleetest.worker.checks.json_values import read_json

__all__ = ["MAX_BODY_BYTES", "Exchange", "NoResponse", "Sent", "send"]

_MOST_REDIRECTS: Final = 20
_E = TypeVar("_E", bound=BaseException)

MAX_BODY_BYTES: Final = 32 << 20
"""Of a response, decompressed. A larger one fails its step."""


class NoResponse(Exception):
    """No usable response came; says why, and what may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request as it was sent."""

    method: str
    url: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """
    A response, and the request that it answers.

    Args:
        protocol: with its version: `HTTP/1.1`.
        elapsed: from sending the request until the whole response was there, redirects included.
    """

    sent: Sent
    protocol: str
    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    encoding: str
    elapsed: timedelta

    @cached_property
    def text(self) -> str:
        """The body; what its encoding has no meaning for is replaced."""
        try:
            return self.body.decode(self.encoding, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    @cached_property
    def _read(self) -> tuple[Any, str]:
        try:
            return read_json(self.body.decode("utf-8-sig")), ""
        except UnicodeDecodeError as error:
            return None, f"byte {error.start + 1} is not UTF-8"
        except ValueError as error:
            return None, str(error)

    def json(self) -> Any:
        """
        The body as JSON.

        Raises:
            ValueError: it is none.
        """
        value, problem = self._read
        if problem or not self.body:
            raise ValueError("the body is empty" if not self.body else f"the body is not JSON: {problem}")
        return value

    def header(self, name: str) -> str | None:
        """Of several headers of this name, all of them, as HTTP joins them."""
        values = [value for each, value in self.headers if each.lower() == name.lower()]
        return ", ".join(values) if values else None


async def send(
    client: httpx.AsyncClient, request: httpx.Request, *, limit: timedelta, follow_redirects: bool
) -> Exchange:
    """
    Send a request and read its response.

    Args:
        limit: for all of it.

    Raises:
        NoResponse: there is none, or it cannot be used.
    """
    began = time.perf_counter()
    try:
        async with asyncio.timeout(limit.total_seconds()):
            response, body = await _answer(client, request)
            redirects = 0
            while follow_redirects and response.next_request is not None:
                redirects += 1
                if redirects > _MOST_REDIRECTS:
                    raise NoResponse(f"{_origin(request)} redirects without end")
                response, body = await _answer(client, response.next_request)
    except TimeoutError as error:
        raise NoResponse(
            f"no complete response within {format_duration(limit)}; `timeout` says how long to wait"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError) as error:
        raise NoResponse(_explained(error, request)) from error
    elapsed = timedelta(seconds=time.perf_counter() - began)
    return Exchange(
        sent=_sent(response.request),
        protocol=response.http_version,
        status=response.status_code,
        reason=response.reason_phrase,
        headers=_pairs(response.headers),
        body=body,
        encoding=response.charset_encoding or "utf-8",
        elapsed=elapsed,
    )


async def _answer(client: httpx.AsyncClient, request: httpx.Request) -> tuple[httpx.Response, bytes]:
    """One response, its body bounded also where it redirects."""
    response = await client.send(request, stream=True, follow_redirects=False)
    try:
        return response, await _body(response)
    finally:
        await response.aclose()


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise NoResponse(f"the response is larger than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(body)


def _sent(request: httpx.Request) -> Sent:
    try:
        body = request.content
    except httpx.RequestNotRead:
        body = b"(a stream)"
    return Sent(method=request.method, url=str(request.url), headers=_pairs(request.headers), body=body)


def _pairs(headers: httpx.Headers) -> list[tuple[str, str]]:
    return [
        (name.decode(headers.encoding, "replace"), value.decode(headers.encoding, "replace"))
        for name, value in headers.raw
    ]


def _origin(request: httpx.Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc.decode('ascii', 'replace')}"


def _explained(error: Exception, request: httpx.Request) -> str:
    origin = _origin(request)
    if (tls := _cause(error, ssl.SSLError)) is not None:
        return _explained_tls(tls, origin)
    match error:
        case httpx.UnsupportedProtocol():
            return f"'{request.url}' is not an address of HTTP: it begins with http:// or https://"
        case httpx.ConnectError():
            return f"no connection to {origin}: {_system_error(error) or error}"
        case httpx.DecodingError():
            return f"the response cannot be decompressed: {error}"
        case httpx.HTTPError():
            return f"{origin} did not answer as HTTP asks: {error or type(error).__name__}"
        case _:
            return f"the request cannot be sent: {error}"


def _explained_tls(error: ssl.SSLError, origin: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "`verify` names a file of certificates to trust, or is false"
        return f"the certificate of {origin} is not accepted: {error.verify_message}. {hint}"
    return f"no TLS connection with {origin}: {error.reason or error}"


def _system_error(error: BaseException) -> str:
    """What the system said, below what libraries made of it."""
    cause = _cause(error, OSError)
    while cause is not None and not cause.errno:
        cause = _cause(cause.__cause__ or cause.__context__, OSError)
    if cause is None or cause.errno is None:
        return ""
    return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)  # below zero: of looking up names


def _cause(error: BaseException | None, kind: type[_E]) -> _E | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
