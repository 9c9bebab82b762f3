"""A master's ports: which services are served where, and how they are encrypted."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health
from grpc_reflection.v1alpha import reflection

from fleetest.common.errors import DependencyUnavailable
from fleetest.common.limits import MAX_MESSAGE_BYTES
from fleetest.master.server_tls import ServerTls
from fleetest.master.servicers.blobs import BlobServicer
from fleetest.master.servicers.fleet import FleetServicer
from fleetest.master.servicers.interceptors import ServerInterceptor
from fleetest.master.servicers.joining import JoiningServicer
from fleetest.master.servicers.runs import RunServicer
from fleetest.master.servicers.workers import WorkerServicer
from fleetest.master.settings import MasterSettings
from fleetest.v1 import (
    blob_pb2,
    blob_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
)

__all__ = ["STOP_GRACE", "Ports", "Servicers", "listen"]

_log = structlog.get_logger()

STOP_GRACE: Final = timedelta(seconds=2)

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),  # a second master on the same port is a mistake, and should fail as one
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)

_RUNS: Final = run_pb2.DESCRIPTOR.services_by_name["RunService"].full_name
_FLEET: Final = fleet_pb2.DESCRIPTOR.services_by_name["FleetService"].full_name
_WORKERS: Final = worker_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
_BLOBS: Final = blob_pb2.DESCRIPTOR.services_by_name["BlobService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Servicers:
    """All that a master serves."""

    runs: RunServicer
    fleet: FleetServicer
    workers: WorkerServicer
    blobs: BlobServicer


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """
    Where a master listens.

    Args:
        main: for clients and joining workers.
        sessions: for the workers' sessions, where these have a port of their own; else 0.
    """

    main: int
    sessions: int = 0


async def listen(
    servicers: Servicers, settings: MasterSettings, interceptor: ServerInterceptor, stack: AsyncExitStack
) -> Ports:
    """
    Serve until the stack is closed.

    gRPC asks for client certificates on a whole port or not at all, so workers that must show one have a port of their
    own for their sessions. The other one then lets them join, and says where to go.

    Raises:
        DependencyUnavailable: an address is taken, or not this machine's.
        InvalidRequest: a file that TLS needs cannot be used.
    """
    workers: worker_pb2_grpc.WorkerServiceServicer = servicers.workers
    sessions = 0
    if settings.worker_address:
        server = _Server(interceptor, [_WORKERS, _BLOBS])
        worker_pb2_grpc.add_WorkerServiceServicer_to_server(servicers.workers, server.grpc)
        blob_pb2_grpc.add_BlobServiceServicer_to_server(servicers.blobs, server.grpc)
        sessions = server.bind(settings.worker_address, settings.worker_tls, "FLEETEST_WORKER_LISTEN_ADDRESS")
        await server.start(stack)
        # Workers know by which name they reach this host; only through a socket they need to be told.
        host = settings.worker_address.rpartition(":")[0] if settings.address.startswith("unix:") else ""
        workers = JoiningServicer(servicers.workers, f"{host}:{sessions}")
    server = _Server(interceptor, [_RUNS, _FLEET, _WORKERS, _BLOBS])
    run_pb2_grpc.add_RunServiceServicer_to_server(servicers.runs, server.grpc)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(servicers.fleet, server.grpc)
    blob_pb2_grpc.add_BlobServiceServicer_to_server(servicers.blobs, server.grpc)
    worker_pb2_grpc.add_WorkerServiceServicer_to_server(workers, server.grpc)
    main = server.bind(settings.address, settings.tls, "FLEETEST_LISTEN_ADDRESS")
    await server.start(stack)
    return Ports(main=main, sessions=sessions)


class _Server:
    def __init__(self, interceptor: ServerInterceptor, services: list[str]) -> None:
        self.grpc = grpc.aio.server(interceptors=[interceptor], options=_OPTIONS)
        self._health = grpc_health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)
        reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], self.grpc)

    def bind(self, address: str, tls: ServerTls | None, variable: str) -> int:
        try:
            port = (
                self.grpc.add_insecure_port(address)
                if tls is None
                else self.grpc.add_secure_port(address, tls.credentials())
            )
        except RuntimeError:
            port = 0
        if not port:
            raise DependencyUnavailable(
                f"cannot listen on {address}", hint=f"another program may have the port: choose one with {variable}"
            )
        return port

    async def start(self, stack: AsyncExitStack) -> None:
        await self.grpc.start()
        stack.push_async_callback(self.grpc.stop, STOP_GRACE.total_seconds())
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
