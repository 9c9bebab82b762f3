"""
What holds for every RPC: who calls, which protocol they speak, what an error becomes, one line in the log.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from typing import Any, Final

import grpc
import structlog

from fleetest.common.errors import FleetestError, Unauthenticated
from fleetest.common.grpc_status import details_of, status_of, trailing_metadata_of
from fleetest.common.protocol import PROTOCOL_HEADER, REQUEST_ID_HEADER, check_protocol
from fleetest.master.activity import Activity

__all__ = ["Audience", "Gatekeeper", "ServerInterceptor"]

_log = structlog.get_logger()

_OPEN_SERVICES: Final = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
_WORKER_SERVICES: Final = frozenset({"fleetest.v1.WorkerService"})
_CLIENT_SERVICES: Final = frozenset({"fleetest.v1.RunService", "fleetest.v1.FleetService"})
_SHARED_SERVICES: Final = frozenset({"fleetest.v1.BlobService"})


class Audience(StrEnum):
    """Whom a token admits."""

    CLIENT = "client"
    WORKER = "worker"


class Gatekeeper:
    """
    Decides by token who may call what.

    Args:
        tokens: by audience; empty admits everybody, which a master does on loopback only.
    """

    def __init__(self, tokens: Mapping[Audience, str]) -> None:
        self._tokens = {audience: token.encode() for audience, token in tokens.items()}

    def admit(self, method: str, authorization: str | None) -> None:
        """
        Args:
            method: full name, as in `/fleetest.v1.RunService/GetRun`.

        Raises:
            Unauthenticated: no token, a wrong one, or one for somebody else.
        """
        service = _service(method)
        if not self._tokens or service in _OPEN_SERVICES:
            return
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "this master wants a token",
                hint="set FLEETEST_TOKEN: clients need the client token, workers the join token of the master",
            )
        admitted = self._audiences(token.strip().encode())
        wanted = Audience.WORKER if service in _WORKER_SERVICES else Audience.CLIENT
        if wanted not in admitted and not (admitted and service in _SHARED_SERVICES):
            raise Unauthenticated(
                f"the token is not one that this master gives to {wanted}s",
                hint="ask whoever runs the master for the right one",
            )

    def _audiences(self, token: bytes) -> frozenset[Audience]:
        """Every token is compared in constant time, so that a guess learns nothing."""
        return frozenset([audience for audience, known in self._tokens.items() if hmac.compare_digest(known, token)])


Handler = Callable[..., Any]


def _service(method: str) -> str:
    return method.strip("/").partition("/")[0]


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler; see the module."""

    def __init__(self, gatekeeper: Gatekeeper, activity: Activity) -> None:
        self._gatekeeper = gatekeeper
        self._activity = activity

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        method = handler_call_details.method
        if handler.response_streaming:
            wrapped = self._streaming(method, handler.unary_stream or handler.stream_stream)
            make = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
        else:
            wrapped = self._unary(method, handler.unary_unary or handler.stream_unary)
            make = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _unary(self, method: str, inner: Handler | None) -> Handler:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            assert inner is not None
            with self._accounted(method):
                async with _Call(method, context, self._gatekeeper):
                    return await inner(request, context)

        return call

    def _streaming(self, method: str, inner: Handler | None) -> Handler:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            assert inner is not None
            with self._accounted(method):
                async with _Call(method, context, self._gatekeeper):
                    async for response in inner(request, context):
                        yield response

        return call

    def _accounted(self, method: str) -> AbstractContextManager[None]:
        return self._activity.call() if _service(method) in _CLIENT_SERVICES else nullcontext()


class _Call:
    """One RPC: admitted at its beginning, accounted for at its end."""

    def __init__(self, method: str, context: grpc.aio.ServicerContext[Any, Any], gatekeeper: Gatekeeper) -> None:
        self._method = method
        self._context = context
        self._gatekeeper = gatekeeper
        self._began = time.monotonic()

    async def __aenter__(self) -> None:
        metadata = {key: value for key, value in self._context.invocation_metadata() or () if isinstance(value, str)}
        structlog.contextvars.bind_contextvars(
            request_id=metadata.get(REQUEST_ID_HEADER) or secrets.token_hex(8), method=self._method
        )
        try:
            self._gatekeeper.admit(self._method, metadata.get("authorization"))
            check_protocol(metadata.get(PROTOCOL_HEADER))
        except FleetestError as error:
            await self._abort(error)

    async def __aexit__(self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._account("OK")
        elif isinstance(error, FleetestError):
            await self._abort(error)
        elif isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError):
            error_id = secrets.token_hex(6)
            _log.exception("rpc_crashed", error_id=error_id, exc_info=error)
            await self._context.abort(
                grpc.StatusCode.INTERNAL, f"the master failed; its log has the reason under error id {error_id}"
            )

    async def _abort(self, error: FleetestError) -> None:
        status = status_of(error)
        self._account(status.name, error=error.message)
        await self._context.abort(status, details_of(error), trailing_metadata=trailing_metadata_of(error))

    def _account(self, status: str, **details: str) -> None:
        seconds = round(time.monotonic() - self._began, 6)
        _log.info("rpc_finished", status=status, seconds=seconds, peer=self._context.peer(), **details)
