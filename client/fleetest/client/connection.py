"""
Calls to a cluster's masters: one channel at a time, and the next address when one does not answer.

Every call of Fleetest's services may be made twice (those that change something are idempotent, by key where it
matters), so a call that found nobody is simply made again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

import grpc
import grpc.aio

from fleetest.client.addresses import is_local
from fleetest.client.identity import identified
from fleetest.common.backoff import Backoff
from fleetest.common.channels import open_channel
from fleetest.common.errors import DependencyUnavailable, FleetestError
from fleetest.common.limits import MAX_MESSAGE_BYTES
from fleetest.common.tls import ClientTls
from fleetest.common.tls_diagnosis import diagnose
from fleetest.v1.blob_pb2_grpc import BlobServiceStub
from fleetest.v1.fleet_pb2_grpc import FleetServiceStub
from fleetest.v1.run_pb2_grpc import RunServiceStub

if TYPE_CHECKING:
    from fleetest.client.streams import Started
    from fleetest.v1 import run_pb2
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub
    from fleetest.v1.fleet_pb2_grpc import FleetServiceAsyncStub
    from fleetest.v1.run_pb2_grpc import RunServiceAsyncStub

__all__ = [
    "CALL_TIMEOUT_SECONDS",
    "GONE",
    "Connection",
    "Failures",
    "Persistence",
    "Services",
    "StartStream",
    "raised_here",
]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

CALL_TIMEOUT_SECONDS: Final = 60
_KEPT_STREAMS: Final = 8
_OPTIONS: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Finds out that a silent master is a dead one.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),  # a watch may be silent for hours
    # This module does the trying again, so that people are told of it.
    ("grpc.enable_retries", 0),
)


StartStream: TypeAlias = "grpc.aio.StreamStreamCall[run_pb2.SubmitRunRequest, run_pb2.StartRunResponse]"
"""Carries submissions and what comes of them, one run after the other."""

GONE: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Nobody is there; a master that goes away in order cancels its calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persistence:
    """
    For how long, and after what waits, a call is made again when nobody answers.

    Args:
        patience: from the first failure in a row to the last try; no address is left out, however long that takes.
        patience_midway: the same once something has come: of a run, which goes on without us, or of an upload. The
            master may just be moving to another machine.
    """

    patience: timedelta = timedelta(seconds=20)
    patience_midway: timedelta = timedelta(minutes=5)
    backoff: Backoff = Backoff(first=timedelta(seconds=1), longest=timedelta(seconds=8))


class Failures:
    """Failures in a row, of a call that is made again."""

    def __init__(self, persistence: Persistence) -> None:
        self._persistence = persistence
        self._patience = persistence.patience
        self._ends_at = 0.0
        self.count = 0

    def add(self) -> None:
        if not self.count:
            self._ends_at = time.monotonic() + self._patience.total_seconds()
        self.count += 1

    def progressed(self) -> None:
        """What fails next is the first."""
        self._patience = self._persistence.patience_midway
        self.count = 0

    @property
    def seconds_left(self) -> float:
        return max(0.0, self._ends_at - time.monotonic())


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The stubs of one channel. `address` is where it leads."""

    address: str
    channel: grpc.aio.Channel
    runs: RunServiceAsyncStub
    fleet: FleetServiceAsyncStub
    blobs: BlobServiceAsyncStub


class Connection:
    """
    The masters of one cluster.

    Args:
        addresses: tried in turn.
        token: sent with every call; empty when the master asks for none.
        tls: how the masters are called over TLS; `None` means without.
        on_trouble: told, in a line for people, each time that something is tried again.

    Attributes:
        started: by run id: streams that came with the answer to a submission, and that nobody has taken up yet.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        token: str = "",
        tls: ClientTls | None = None,
        persistence: Persistence | None = None,
        on_trouble: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._addresses = tuple(addresses)
        self._token = token
        self._tls = tls
        self._persistence = persistence or Persistence()
        self._on_trouble = on_trouble
        self._services: Services | None = None
        self._turn = 0
        self.started: dict[str, Started] = {}
        self._kept: list[StartStream] = []

    @property
    def services(self) -> Services:
        """The stubs of the present channel, which is opened when there is none."""
        if self._services is None:
            self._services = _open(self._addresses[self._turn % len(self._addresses)], self._token, self._tls)
        return self._services

    async def call(
        self,
        method: Callable[[Services], grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]],
        request: _Request,
    ) -> _Response:
        """
        Make a call, again when nobody answered.

        Raises:
            DependencyUnavailable: nobody answered at any address.
            FleetestError: what the master raised.
        """
        failures = self.failures()
        while True:
            services = self.services
            try:
                return await method(services)(request, timeout=CALL_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as rpc_error:
                error = raised_here(rpc_error)
                if rpc_error.code() not in GONE:
                    raise error from None
            await self.recover(services, failures, error)

    async def call_once(
        self,
        method: Callable[[Services], grpc.aio.UnaryUnaryMultiCallable[_Request, _Response]],
        request: _Request,
    ) -> _Response:
        """
        Make a call that nobody depends on: no second try, and the channel stays as it is.

        Raises:
            FleetestError: nobody answered, or what the master raised.
        """
        try:
            return await method(self.services)(request, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as rpc_error:
            raise raised_here(rpc_error) from None

    def failures(self) -> Failures:
        """None yet, of a call that is about to be made."""
        return Failures(self._persistence)

    async def recover(self, failed: Services, failures: Failures, error: FleetestError) -> None:
        """
        Count one failure more, wait, and turn to the next address unless somebody else has done so already.

        Raises:
            DependencyUnavailable: that was the last try, or none would help: the two sides do not agree about TLS.
        """
        failures.add()
        all_failed = failures.count >= len(self._addresses)
        misfit = await diagnose(failed.address, self._tls)
        if misfit is not None and all_failed:
            raise misfit from None
        if all_failed and not failures.seconds_left:
            raise DependencyUnavailable(
                f"no master answers at {', '.join(self._addresses)}: {_cause(error.message)}",
                hint=error.hint
                or "See that one runs there (`fleetest up` starts one on this machine), and that "
                "FLEETEST_MASTER or --master names it.",
            ) from None
        self._on_trouble(f"{failed.address} does not answer; trying again for {failures.seconds_left:.0f} s")
        if self._services is failed:
            self._services = None
            self._turn += 1
            self._drop_streams()
            await failed.channel.close()
        wait = self._persistence.backoff.delay(failures.count).total_seconds()
        await asyncio.sleep(min(wait, failures.seconds_left))

    def take_stream(self) -> StartStream | None:
        """An open stream for a submission, of the present channel; `None` when there is none."""
        while self._kept:
            stream = self._kept.pop()
            if not stream.done():
                return stream
        return None

    def keep_stream(self, stream: StartStream) -> None:
        """The stream's run has ended. It is kept for the next; of several that fall idle at once, a few."""
        if len(self._kept) < _KEPT_STREAMS:
            self._kept.append(stream)
        else:
            stream.cancel()

    def _drop_streams(self) -> None:
        while self._kept:
            self._kept.pop().cancel()

    async def close(self) -> None:
        """Close the channel. Idempotent."""
        services, self._services = self._services, None
        self.started.clear()
        self._drop_streams()
        if services is not None:
            await services.channel.close()


def _cause(message: str) -> str:
    """What the system said, of all that gRPC makes of it."""
    return message.rpartition("Failed to connect to remote host: ")[2]


def raised_here(rpc_error: grpc.RpcError) -> FleetestError:
    """The error that the master raised, as one of this process."""
    from fleetest.common.grpc_status import error_from  # reads suites too: needed only when something went wrong

    return error_from(rpc_error)


def _open(address: str, token: str, tls: ClientTls | None) -> Services:
    proxy = (("grpc.enable_http_proxy", 0),) if is_local(address) else ()
    channel = open_channel(address, tls, options=(*_OPTIONS, *proxy))
    return Services(
        address=address,
        channel=channel,
        runs=identified(RunServiceStub(channel), token),
        fleet=identified(FleetServiceStub(channel), token),
        blobs=identified(BlobServiceStub(channel), token),
    )
