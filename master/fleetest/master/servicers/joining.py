"""`WorkerService` on a port where workers join, and hold no sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from fleetest.common.errors import WrongState
from fleetest.master.servicers.workers import WorkerServicer
from fleetest.v1 import worker_pb2, worker_pb2_grpc

__all__ = ["JoiningServicer"]


class JoiningServicer(worker_pb2_grpc.WorkerServiceServicer):
    """
    Args:
        workers: takes the registrations.
        session_address: told to the workers; see `RegisterResponse` in `worker.proto`.
    """

    def __init__(self, workers: WorkerServicer, session_address: str) -> None:
        self._workers = workers
        self._session_address = session_address

    async def Register(
        self, request: worker_pb2.RegisterRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> worker_pb2.RegisterResponse:
        answer = await self._workers.Register(request, context)
        answer.session_address = self._session_address
        return answer

    async def Session(
        self, request_iterator: AsyncIterator[worker_pb2.WorkerMessage], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[worker_pb2.MasterMessage]:
        raise WrongState(
            f"this master holds its workers' sessions at {self._session_address}",
            hint="upgrade the worker: it did not go where its registration told it",
        )
        yield worker_pb2.MasterMessage()  # makes it the generator that gRPC expects
