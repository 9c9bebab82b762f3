"""The master as a worker sees it: gRPC on one side, values and Fleetest's own errors on the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import grpc
from grpc import aio

from fleetest.common import channels
from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.grpc_status import error_from
from fleetest.common.limits import MAX_MESSAGE_BYTES
from fleetest.common.protocol import PROTOCOL, PROTOCOL_HEADER
from fleetest.common.settings import Secret
from fleetest.common.tls import ClientTls
from fleetest.common.tls_diagnosis import diagnose
from fleetest.v1 import worker_pb2
from fleetest.v1.worker_pb2_grpc import WorkerServiceStub
from fleetest.worker.assignments import TaskSpec
from fleetest.worker.convert import instruction_from_proto, offer_to_proto, registered_from_proto, statement_to_proto
from fleetest.worker.messages import Instruction, Offer, Registered, Statement

if TYPE_CHECKING:
    from fleetest.v1.worker_pb2_grpc import WorkerServiceAsyncStub

__all__ = ["MasterConnection", "SessionStream", "dial", "identified", "open_channel"]

_Stub = TypeVar("_Stub")

_REGISTER_TIMEOUT_SECONDS: Final = 10
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A frozen or vanished master sends no reset: only an unanswered ping tells. The master allows this many.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # for as long as the channel is open
    ("grpc.http2.max_pings_without_data", 0),
)

_Call = aio.StreamStreamCall[worker_pb2.WorkerMessage, worker_pb2.MasterMessage]


class SessionStream:
    """
    One open stream. Statements arrive in the order in which they were said. Any method raises `LeaseLost` when the
    session is no longer the worker's, `DependencyUnavailable` when the stream is broken.
    """

    def __init__(self, call: _Call) -> None:
        self._call = call
        self._specs: dict[str, TaskSpec] = {}
        self._one_writer = asyncio.Lock()

    async def say(self, statement: Statement) -> None:
        message = statement_to_proto(statement)
        with _errors_translated:
            async with self._one_writer:
                await self._call.write(message)

    async def hear(self) -> Instruction:
        """The next instruction; what only a newer master says is passed over."""
        while True:
            instruction = instruction_from_proto(await self._read(), self._specs)
            if instruction is not None:
                return instruction

    async def finish(self) -> None:
        """Say that nothing more comes, and let the master end the stream."""
        with _errors_translated:
            await self._call.done_writing()

    async def _read(self) -> worker_pb2.MasterMessage:
        with _errors_translated:
            message = await self._call.read()
        if isinstance(message, worker_pb2.MasterMessage):
            return message
        raise DependencyUnavailable("the master ended the stream")


class MasterConnection:
    """A master, called at one address."""

    def __init__(self, address: str, channel: aio.Channel, token: Secret, tls: ClientTls | None) -> None:
        self._address = address
        self._stub = identified(WorkerServiceStub(channel), token)
        self._token = token
        self._tls = tls

    async def register(self, offer: Offer) -> Registered:
        """
        Raises:
            Unauthenticated, Forbidden: the token is missing, wrong, or not a worker's.
            AlreadyExists: a live worker has the id.
            WrongState: the master does not speak this protocol.
            DependencyUnavailable, DeadlinePassed: it does not answer.
        """
        with _errors_translated:
            answer = await self._stub.Register(offer_to_proto(offer), timeout=_REGISTER_TIMEOUT_SECONDS)
        return registered_from_proto(answer)

    @asynccontextmanager
    async def session(self, address: str = "") -> AsyncIterator[SessionStream]:
        """
        An open stream, closed on the way out.

        Args:
            address: where the registration says that sessions are held.
        """
        if not address:
            async with _session_of(self._stub) as stream:
                yield stream
            return
        if address.startswith(":"):
            address = self._address.rpartition(":")[0] + address
        async with (
            _explained(address, self._tls),
            open_channel(address, self._tls) as channel,
            _session_of(identified(WorkerServiceStub(channel), self._token)) as stream,
        ):
            yield stream


@asynccontextmanager
async def _session_of(stub: WorkerServiceAsyncStub) -> AsyncIterator[SessionStream]:
    call: _Call = stub.Session()
    try:
        yield SessionStream(call)
    finally:
        call.cancel()


@asynccontextmanager
async def dial(address: str, token: Secret, tls: ClientTls | None = None) -> AsyncIterator[MasterConnection]:
    """A connection to the master at `host:port`; nothing is sent before the first call."""
    async with _explained(address, tls), open_channel(address, tls) as channel:
        yield MasterConnection(address, channel, token, tls)


@asynccontextmanager
async def _explained(address: str, tls: ClientTls | None) -> AsyncIterator[None]:
    """What gRPC says of a connection that does not come about is for its developers."""
    try:
        yield
    except DependencyUnavailable as error:
        raise await diagnose(address, tls) or error from None


def open_channel(address: str, tls: ClientTls | None = None) -> aio.Channel:
    """
    A channel to the master at `host:port`, to be used as a context manager.

    Raises:
        DependencyUnavailable: a file that TLS needs cannot be used just now; it could be when the worker began.
    """
    try:
        return channels.open_channel(address, tls, options=_CHANNEL_OPTIONS)
    except InvalidRequest as error:
        raise DependencyUnavailable(error.message, hint=error.hint) from None


def identified(stub: _Stub, token: Secret) -> _Stub:
    """The same stub; its calls say which protocol this is and, with a token, who calls."""
    metadata = [(PROTOCOL_HEADER, str(PROTOCOL))]
    if token:
        metadata.append(("authorization", f"Bearer {token.reveal()}"))
    for name, call in list(vars(stub).items()):
        setattr(stub, name, partial(call, metadata=metadata))
    return stub


class _ErrorsTranslated:
    """A context for calls; one made of a generator would cost each message as much as its conversion."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, grpc.RpcError):
            raise error_from(error) from error
        if isinstance(error, asyncio.InvalidStateError):  # the stream ended while we were writing
            raise DependencyUnavailable("the stream to the master is closed") from error


_errors_translated: Final = _ErrorsTranslated()
