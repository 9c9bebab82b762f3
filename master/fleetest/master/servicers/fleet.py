"""`FleetService`: what operators ask of workers and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from fleetest.common.convert import duration_from_proto
from fleetest.common.protocol import OLDEST_PROTOCOL, PROTOCOL
from fleetest.common.states import RunState
from fleetest.common.version import version
from fleetest.master.access.principals import Access, caller
from fleetest.master.access.token_book import TokenBook, TokenOrder
from fleetest.master.access.tokens import Token, TokenKind, TokenText
from fleetest.master.peers import Peers
from fleetest.master.queue.ports import WorkerRegistry
from fleetest.master.roster import Roster
from fleetest.master.runs.speeds import SpeedBook
from fleetest.master.servicers.convert import presence_to_proto
from fleetest.master.servicers.convert_tokens import access_from_proto, token_to_proto
from fleetest.master.sessions import Drain, Sessions
from fleetest.master.store.ports import RunQuery, Store
from fleetest.v1 import fleet_pb2, fleet_pb2_grpc

__all__ = ["FleetServicer"]

_MOST_ACTIVE_RUNS = 500


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """A thin layer over the registry and the tokens."""

    def __init__(
        self,
        registry: WorkerRegistry,
        roster: Roster,
        sessions: Sessions,
        store: Store,
        tokens: TokenBook,
        on_revoked: Callable[[], None],
        peers: Peers,
        on_change: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._roster = roster
        self._sessions = sessions
        self._store = store
        self._speeds = SpeedBook(store)
        self._tokens = tokens
        self._on_revoked = on_revoked
        self._peers = peers
        self._on_change = on_change

    async def ListWorkers(
        self, request: fleet_pb2.ListWorkersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.ListWorkersResponse:
        workers = sorted(await self._roster.list(), key=lambda worker: worker.worker_id)
        speeds = await self._speeds.overall()
        return fleet_pb2.ListWorkersResponse(
            workers=[
                presence_to_proto(worker, speeds.get(worker.worker_id, 0.0))
                for worker in workers
                if request.include_offline or not worker.offline
            ]
        )

    async def DrainWorker(
        self, request: fleet_pb2.DrainWorkerRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.DrainWorkerResponse:
        await self._registry.drain(request.worker_id)
        session = self._sessions.get(request.worker_id)
        if session is not None:
            session.drain(Drain(reason=request.reason or "drained by an operator"))
            self._on_change()
        else:
            self._peers.worker_changed(request.worker_id)
        return fleet_pb2.DrainWorkerResponse()

    async def GetServerInfo(
        self, request: fleet_pb2.GetServerInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.ServerInfo:
        active = await self._store.list_runs(RunQuery(state=RunState.RUNNING, limit=_MOST_ACTIVE_RUNS))
        workers = [worker for worker in await self._roster.list() if not worker.offline]
        return fleet_pb2.ServerInfo(
            version=version(),
            protocol=PROTOCOL,
            oldest_protocol=OLDEST_PROTOCOL,
            active_runs=len(active),
            workers=len(workers),
        )

    async def CreateJoinToken(
        self, request: fleet_pb2.CreateJoinTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.CreateTokenResponse:
        order = TokenOrder(
            kind=TokenKind.JOIN,
            description=request.description,
            lifetime=duration_from_proto(request.lifetime) if request.HasField("lifetime") else None,
            worker_id_prefix=request.worker_id_prefix,
            required_labels=dict(request.required_labels),
            most_workers=request.most_workers,
        )
        return _created(*await self._tokens.create(order, by=caller().name))

    async def CreateClientToken(
        self, request: fleet_pb2.CreateClientTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.CreateTokenResponse:
        order = TokenOrder(
            kind=TokenKind.CLIENT,
            description=request.description,
            lifetime=duration_from_proto(request.lifetime) if request.HasField("lifetime") else None,
            project=request.project,
            access=access_from_proto(request.access) if request.access else Access.WRITE,
        )
        return _created(*await self._tokens.create(order, by=caller().name))

    async def ListTokens(
        self, request: fleet_pb2.ListTokensRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.ListTokensResponse:
        tokens = await self._tokens.list(include_ended=request.include_ended)
        return fleet_pb2.ListTokensResponse(tokens=[token_to_proto(token) for token in tokens])

    async def RevokeToken(
        self, request: fleet_pb2.RevokeTokenRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> fleet_pb2.RevokeTokenResponse:
        token = await self._tokens.revoke(request.token_id, by=caller().name)
        self._on_revoked()
        return fleet_pb2.RevokeTokenResponse(token=token_to_proto(token))


def _created(token: Token, text: TokenText) -> fleet_pb2.CreateTokenResponse:
    return fleet_pb2.CreateTokenResponse(token=token_to_proto(token), text=text.reveal())
