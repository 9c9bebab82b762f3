"""Streams that go on where they broke: a run's commits, a task's output, a blob's content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from fleetest.client.connection import CALL_TIMEOUT_SECONDS, GONE, Connection, Services, StartStream, raised_here
from fleetest.client.later import Later
from fleetest.common.errors import DeadlinePassed, DependencyUnavailable, FleetestError
from fleetest.v1 import blob_pb2, run_pb2

if TYPE_CHECKING:
    from fleetest.client import convert
    from fleetest.client.events import Commit
    from fleetest.client.values import LogChunk
else:
    convert = Later("fleetest.client.convert")

__all__ = ["Started", "download_blob", "read_logs", "start_run", "watch_run"]

# A stream that held so long was sound, though nothing may have happened in the run.
_SOUND_AFTER_SECONDS: Final = 20.0


def _broken(rpc_error: grpc.RpcError) -> FleetestError:
    """
    Raises:
        FleetestError: the stream did not break, it was refused.
    """
    error = raised_here(rpc_error)
    if rpc_error.code() not in GONE:
        raise error from None
    return error


@dataclass(slots=True, kw_only=True)
class Started:
    """
    A stream that has answered a submission, and goes on with the run's commits.

    Args:
        keep: takes the stream, when the run has ended, for the next.
    """

    services: Services
    stream: StartStream
    first: run_pb2.StartRunResponse
    keep: Callable[[StartStream], None]
    _coming: asyncio.Task[object] | None = field(default=None, init=False)

    async def wait_for_more(self, at_most: timedelta) -> None:
        """Until the stream says more than its answer, or ends."""
        if self._coming is None and not _ends_run(self.first.commit):
            self._coming = asyncio.ensure_future(self.stream.read())
        if self._coming is not None:
            await asyncio.wait({self._coming}, timeout=at_most.total_seconds())

    async def commits(self) -> AsyncGenerator[run_pb2.WatchRunResponse, None]:
        ended = False
        try:
            message: object = self.first
            while isinstance(message, run_pb2.StartRunResponse) and not ended:
                ended = message.HasField("commit") and _ends_run(message.commit)
                if message.HasField("commit"):
                    yield message.commit
                if not ended:
                    coming, self._coming = self._coming or self.stream.read(), None
                    message = await coming
        finally:
            if ended:
                self.keep(self.stream)
            else:
                self.stream.cancel()


def _ends_run(commit: run_pb2.WatchRunResponse) -> bool:
    """A run's end is the last event of its log."""
    return bool(commit.events) and commit.events[-1].HasField("run_ended")


async def start_run(connection: Connection, request: run_pb2.SubmitRunRequest) -> run_pb2.SubmitRunResponse:
    """
    Submit; the stream of commits that comes with the answer is there for who watches the run next. A stream whose last
    run has ended is used again.

    Raises as `Connection.call`.
    """
    failures = connection.failures()
    while True:
        services, kept = connection.services, None
        error: FleetestError = DependencyUnavailable("the stream ended before it had begun")
        try:
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                stream = kept = await _asked_over_kept_stream(connection, request)
                if stream is None:
                    stream = services.runs.StartRuns()
                    await stream.write(request)
                first = await stream.read()
            if isinstance(first, run_pb2.StartRunResponse):
                connection.started[first.submitted.run_id] = Started(
                    services=services, stream=stream, first=first, keep=connection.keep_stream
                )
                return first.submitted
        except TimeoutError:  # which has cancelled the stream
            raise DeadlinePassed(f"the master did not answer within {CALL_TIMEOUT_SECONDS} s") from None
        except grpc.aio.AioRpcError as rpc_error:
            error = _broken(rpc_error)
        if kept is None:  # else it broke while nothing was said, perhaps long ago
            await connection.recover(services, failures, error)


async def _asked_over_kept_stream(connection: Connection, request: run_pb2.SubmitRunRequest) -> StartStream | None:
    while (stream := connection.take_stream()) is not None:
        with suppress(grpc.aio.AioRpcError):  # it has just broken; a new one tells why, if that lasts
            await stream.write(request)
            return stream
    return None


async def _watched(services: Services, run_id: str, position: int) -> AsyncGenerator[run_pb2.WatchRunResponse, None]:
    request = run_pb2.WatchRunRequest(run_id=run_id, after_position=position)
    stream = services.runs.WatchRun(request)
    try:
        async for message in stream:
            yield message
    finally:
        stream.cancel()


async def watch_run(connection: Connection, run_id: str, *, after_position: int) -> AsyncIterator[Commit]:
    """
    The commits after a position, each once and in order, until the run has ended.

    Raises:
        DependencyUnavailable: the stream broke, and could not be taken up again.
    """
    failures = connection.failures()
    position = after_position
    started = connection.started.pop(run_id, None) if position == 0 else None
    if started is not None:
        failures.progressed()
    while True:
        services = connection.services if started is None else started.services
        opened_at = time.monotonic()
        error: FleetestError = DependencyUnavailable("the stream ended before the run did")
        try:
            messages = _watched(services, run_id, position) if started is None else started.commits()
            started = None
            async for message in messages:
                if message.position <= position:
                    continue
                if message.position != position + 1:
                    error = DependencyUnavailable(
                        f"commit {message.position} of run {run_id} came where {position + 1} was due"
                    )
                    await messages.aclose()
                    break
                commit = convert.commit_from_proto(message)
                position = commit.position
                failures.progressed()
                yield commit
                if _ends_run(message):
                    await messages.aclose()
                    return
        except grpc.aio.AioRpcError as rpc_error:
            error = _broken(rpc_error)
        if time.monotonic() - opened_at >= _SOUND_AFTER_SECONDS:
            failures.progressed()
        await connection.recover(services, failures, error)


async def read_logs(connection: Connection, request: run_pb2.ReadLogsRequest) -> AsyncIterator[LogChunk]:
    """
    What a task's processes wrote. Taken up again after a break, where what came before is left out.

    Raises:
        DependencyUnavailable: the stream broke, and could not be taken up again.
    """
    failures = connection.failures()
    seen: dict[tuple[str, int], tuple[int, bool]] = {}
    while True:
        services = connection.services
        opened_at = time.monotonic()
        try:
            async for message in services.runs.ReadLogs(request):
                attempt = (message.shard_id, message.token)
                end = (message.offset_bytes + len(message.content), message.truncated)
                if end <= seen.get(attempt, (-1, False)):
                    continue
                seen[attempt] = end
                failures.progressed()
                yield convert.log_chunk_from_proto(message)
        except grpc.aio.AioRpcError as rpc_error:
            error = _broken(rpc_error)
        else:
            return
        if time.monotonic() - opened_at >= _SOUND_AFTER_SECONDS:
            failures.progressed()
        await connection.recover(services, failures, error)


async def download_blob(connection: Connection, digest: str) -> AsyncIterator[bytes]:
    """
    A blob's content, piece by piece and in order. Whether it is right is the caller's to check.

    Raises:
        NotFound: the master has no such blob.
        DependencyUnavailable: the stream broke; a download is begun again by the caller.
    """
    request = blob_pb2.DownloadBlobsRequest(digests=[digest])
    try:
        async for message in connection.services.blobs.DownloadBlobs(request):
            for chunk in (message, *message.more):
                yield chunk.content
    except grpc.aio.AioRpcError as rpc_error:
        raise raised_here(rpc_error) from None
