"""
What holds for every RPC: who calls, which protocol they speak, what an error becomes, one line in the log.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, NoReturn

import grpc
import structlog

from fleetest.common.errors import FleetestError
from fleetest.common.grpc_status import details_of, status_of, trailing_metadata_of
from fleetest.common.protocol import PROTOCOL_HEADER, REQUEST_ID_HEADER, check_protocol
from fleetest.master.access.gatekeeper import Gatekeeper
from fleetest.master.access.methods import CLIENT_SERVICES, KEPT_OPEN, service_of
from fleetest.master.access.open_streams import OpenStreams
from fleetest.master.access.principals import Principal, act_as
from fleetest.master.activity import Activity

__all__ = ["ServerInterceptor"]

_log = structlog.get_logger()

Handler = Callable[..., Any]


class ServerInterceptor(grpc.aio.ServerInterceptor):
    """
    Wraps every handler; see the module.

    Args:
        streams: ends those whose caller loses its admission; `None` where nobody can.
    """

    def __init__(self, gatekeeper: Gatekeeper, activity: Activity, streams: OpenStreams | None = None) -> None:
        self._gatekeeper = gatekeeper
        self._activity = activity
        self._streams = streams

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
                async with _Call(method, context, self._gatekeeper) as principal, self._held(principal):
                    async for response in inner(request, context):
                        yield response

        return call

    def _accounted(self, method: str) -> AbstractContextManager[None]:
        is_asking = service_of(method) in CLIENT_SERVICES and method not in KEPT_OPEN
        return self._activity.call() if is_asking else nullcontext()

    def _held(self, principal: Principal) -> AbstractAsyncContextManager[None]:
        return self._streams.hold(principal) if self._streams is not None else nullcontext()


class _Call:
    """One RPC: admitted at its beginning, accounted for at its end."""

    def __init__(self, method: str, context: grpc.aio.ServicerContext[Any, Any], gatekeeper: Gatekeeper) -> None:
        self._method = method
        self._context = context
        self._gatekeeper = gatekeeper
        self._began = time.monotonic()

    async def __aenter__(self) -> Principal:
        metadata = {key: value for key, value in self._context.invocation_metadata() or () if isinstance(value, str)}
        structlog.contextvars.bind_contextvars(
            request_id=metadata.get(REQUEST_ID_HEADER) or secrets.token_hex(8), method=self._method
        )
        try:
            principal = await self._gatekeeper.admit(self._method, metadata.get("authorization"))
            check_protocol(metadata.get(PROTOCOL_HEADER))
        except FleetestError as error:
            await self._abort(error)
        act_as(principal)
        structlog.contextvars.bind_contextvars(caller=principal.name)
        return principal

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

    async def _abort(self, error: FleetestError) -> NoReturn:
        status = status_of(error)
        self._account(status.name, error=error.message)
        await self._context.abort(status, details_of(error), trailing_metadata=trailing_metadata_of(error))

    def _account(self, status: str, **details: str) -> None:
        seconds = round(time.monotonic() - self._began, 6)
        _log.info("rpc_finished", status=status, seconds=seconds, peer=self._context.peer(), **details)
