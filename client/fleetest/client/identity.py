"""Says with every call who calls: token, protocol, and an id of its own by which both sides' logs find it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc.aio

from fleetest.common.ids import new_token
from fleetest.common.protocol import PROTOCOL, PROTOCOL_HEADER, REQUEST_ID_HEADER

__all__ = ["identifying_interceptors"]

_Request = TypeVar("_Request")
_Call = TypeVar("_Call")
_Continuation = Callable[[grpc.aio.ClientCallDetails, _Request], Awaitable[_Call]]

_REQUEST_ID_LENGTH = 22


class _Identity:
    def __init__(self, token: str) -> None:
        self._token = token

    def on(self, details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
        metadata = grpc.aio.Metadata(*(details.metadata or ()))
        if self._token:
            metadata.add("authorization", f"Bearer {self._token}")
        metadata.add(PROTOCOL_HEADER, str(PROTOCOL))
        metadata.add(REQUEST_ID_HEADER, new_token()[:_REQUEST_ID_LENGTH])
        return grpc.aio.ClientCallDetails(
            method=details.method,
            timeout=details.timeout,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


# gRPC sorts interceptors by class and takes each for one kind only, hence three.
class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, identity: _Identity) -> None:
        self._identity = identity

    async def intercept_unary_unary(
        self, continuation: _Continuation[_Request, _Call], client_call_details: Any, request: _Request
    ) -> _Call:
        return await continuation(self._identity.on(client_call_details), request)


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, identity: _Identity) -> None:
        self._identity = identity

    async def intercept_unary_stream(
        self, continuation: _Continuation[_Request, _Call], client_call_details: Any, request: _Request
    ) -> _Call:
        return await continuation(self._identity.on(client_call_details), request)


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    def __init__(self, identity: _Identity) -> None:
        self._identity = identity

    async def intercept_stream_unary(
        self,
        continuation: _Continuation[AsyncIterable[_Request] | Iterable[_Request], _Call],
        client_call_details: Any,
        request_iterator: AsyncIterable[_Request] | Iterable[_Request],
    ) -> _Call:
        return await continuation(self._identity.on(client_call_details), request_iterator)


def identifying_interceptors(token: str) -> tuple[grpc.aio.ClientInterceptor, ...]:
    """Interceptors for a client's channel. With an empty token no `authorization` is sent."""
    identity = _Identity(token)
    return (_UnaryUnary(identity), _UnaryStream(identity), _StreamUnary(identity))
