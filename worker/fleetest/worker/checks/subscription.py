"""
GraphQL subscriptions over WebSocket, in the protocol `graphql-transport-ws`.

https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from fleetest.common.suite.durations import format_duration
from fleetest.worker.checks.exchange import MAX_BODY_BYTES, Exchange, NoResponse, Sent
from fleetest.worker.checks.json_values import read_json

__all__ = ["subscribed"]

_PROTOCOL: Final = Subprotocol("graphql-transport-ws")
_ID: Final = "1"
_CLOSING_SECONDS: Final = 2.0
_SWITCHING_PROTOCOLS: Final = 101


async def subscribed(
    url: str,
    operation: Mapping[str, Any],
    *,
    payload: Mapping[str, Any],
    headers: Mapping[str, str],
    context: ssl.SSLContext,
    messages: int,
    limit: timedelta,
) -> Exchange:
    """
    Subscribe, and wait for as many messages; fewer when the server ends it, or time does. The body is their list.

    Args:
        payload: of `connection_init`, where some servers want to have credentials.
        limit: for all of it.

    Raises:
        NoResponse: there is no subscription.
    """
    address = "ws" + url.removeprefix("http") if url.startswith("http") else url
    listener = _Listener(operation, payload, messages)
    began = time.perf_counter()
    try:
        async with (
            asyncio.timeout(limit.total_seconds()),
            connect(
                address,
                subprotocols=[_PROTOCOL],
                additional_headers=dict(headers),
                ssl=context if address.startswith("wss:") else None,
                max_size=MAX_BODY_BYTES,
                open_timeout=None,
                close_timeout=_CLOSING_SECONDS,
            ) as connection,
        ):
            await listener.listen(connection)
    except TimeoutError as error:
        if not listener.subscribed:
            raise NoResponse(f"no subscription within {format_duration(limit)}") from error
    except ConnectionClosed as error:
        if not listener.subscribed or not listener.received:
            close = error.rcvd
            why = f"{close.code} {close.reason}".rstrip() if close is not None else "without a reason"
            raise NoResponse(f"the endpoint closed the connection: {why}") from error
    except (InvalidHandshake, InvalidURI, OSError, ValueError) as error:
        raise NoResponse(_explained(error, address)) from error
    return Exchange(
        sent=Sent(
            method="SUBSCRIBE", url=address, headers=list(headers.items()), body=json.dumps(dict(operation)).encode()
        ),
        protocol=_PROTOCOL,
        status=_SWITCHING_PROTOCOLS,
        reason="Switching Protocols",
        headers=[],
        body=json.dumps(listener.received, ensure_ascii=False).encode("utf-8", "replace"),
        encoding="utf-8",
        elapsed=timedelta(seconds=time.perf_counter() - began),
    )


class _Listener:
    """
    Attributes:
        received: the payloads of the messages that came.
        subscribed: whether the endpoint has accepted the connection, and was asked.
    """

    def __init__(self, operation: Mapping[str, Any], payload: Mapping[str, Any], messages: int) -> None:
        self.received: list[Any] = []
        self.subscribed = False
        self._operation = operation
        self._payload = payload
        self._messages = messages

    async def listen(self, connection: ClientConnection) -> None:
        if connection.subprotocol != _PROTOCOL:
            raise NoResponse(f"the endpoint does not speak {_PROTOCOL}")
        await self._say(connection, "connection_init", payload=dict(self._payload))
        async for text in connection:
            message = _read(text)
            kind = message.get("type")
            if kind == "ping":
                await self._say(connection, "pong")
            elif kind == "connection_ack" and not self.subscribed:
                await self._say(connection, "subscribe", id=_ID, payload=dict(self._operation))
                self.subscribed = True
            elif kind == "next" and self.subscribed:
                self.received.append(message.get("payload"))
            elif kind == "error":
                self.received.append({"errors": message.get("payload")})
                return
            elif kind == "complete":
                return
            if len(self.received) >= self._messages:
                await self._say(connection, "complete", id=_ID)
                return

    @staticmethod
    async def _say(connection: ClientConnection, kind: str, **fields: Any) -> None:
        await connection.send(json.dumps({"type": kind, **fields}))


def _read(text: str | bytes) -> Mapping[str, Any]:
    try:
        message = read_json(text if isinstance(text, str) else text.decode())
    except ValueError as error:
        raise NoResponse(f"the endpoint sent what is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise NoResponse("the endpoint sent what is no message")
    return message


def _explained(error: Exception, address: str) -> str:
    if isinstance(error, InvalidStatus):
        return f"{address} answers with {error.response.status_code}, not with a WebSocket"
    return f"no WebSocket at {address}: {error}"
