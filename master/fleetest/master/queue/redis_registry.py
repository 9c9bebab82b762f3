"""
The registry of workers in Redis.

`workers` holds each worker's last word of itself, `session:ID` the session that lives (with the lease as its time
to live), `drained` the instance that was asked to drain. All keys share a hash slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from fleetest.common.errors import AlreadyExists, LeaseLost, NotFound
from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.ports import Presence
from fleetest.master.queue.sources import lua
from fleetest.master.queue.wire import Wire, WireScript

__all__ = ["RedisWorkerRegistry"]

_PREFIX: Final = "fleetest:{workers}:"
_WORKERS: Final = _PREFIX + "workers"
_DRAINED: Final = _PREFIX + "drained"
_REMEMBERED: Final = timedelta(days=1)


class RedisWorkerRegistry:
    """Fulfils `WorkerRegistry`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._register = redis.register_script(lua("register"))
        self._renew = WireScript(Wire(redis), lua("renew"))  # for each worker, several times a second
        self._end = redis.register_script(lua("end"))
        self._forget = redis.register_script(lua("forget_worker"))

    async def register(self, worker: Presence, *, lease_ttl: timedelta) -> Presence | None:
        """A repetition of the same session answers `None`."""
        keys = [_WORKERS, _session_key(worker.worker_id)]
        args: Sequence[str | bytes | int] = [
            worker.worker_id,
            worker.session_id,
            worker.instance,
            _encode(worker),
            _milliseconds(lease_ttl),
        ]
        with redis_errors():
            word, *records = await self._register(keys=keys, args=args)
        before = _decode(records[0]) if records else None
        if word == b"taken" and before is not None:
            raise _taken(before)
        return None if before is None or before.session_id == worker.session_id else before

    async def attach(self, worker: Presence, *, lease_ttl: timedelta) -> None:
        with redis_errors():
            alive = await self._renew(**_renewal(worker, lease_ttl, stream=""))
        if not alive:
            raise _over(worker)

    async def renew(self, worker: Presence, *, lease_ttl: timedelta) -> None:
        with redis_errors():
            alive = await self._renew(**_renewal(worker, lease_ttl, stream=worker.stream))
        if not alive:
            raise _over(worker)

    async def note(self, workers: Sequence[Presence]) -> None:
        """In one round trip."""
        if not workers:
            return
        with redis_errors():
            await asyncio.gather(*(self._renew(**_renewal(worker, None, stream=worker.stream)) for worker in workers))

    async def end(self, worker_id: str, session_id: str) -> None:
        with redis_errors():
            await self._end(keys=[_session_key(worker_id)], args=[session_id])

    async def drain(self, worker_id: str) -> None:
        worker = await self.get(worker_id)
        if worker is None:
            raise NotFound(f"no worker {worker_id!r}", hint="`fleetest workers` lists those that are known.")
        with redis_errors():
            await self._redis.hset(_DRAINED, worker_id, worker.instance)

    async def get(self, worker_id: str) -> Presence | None:
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hget(_WORKERS, worker_id)
                pipeline.hget(_DRAINED, worker_id)
                pipeline.get(_session_key(worker_id))
                record, drained, session = await pipeline.execute()
        return None if record is None else _seen(record, drained, session)

    async def list(self) -> Sequence[Presence]:
        """Sorted by id."""
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hgetall(_WORKERS)
                pipeline.hgetall(_DRAINED)
                pipeline.time()
                records, drained, (seconds, _) = await pipeline.execute()
            sessions = await self._sessions(list(records))
        oldest = datetime.fromtimestamp(seconds, tz=UTC) - _REMEMBERED
        workers = []
        for worker_id, record in sorted(records.items()):
            worker = _seen(record, drained.get(worker_id), sessions.get(worker_id))
            if worker.offline and worker.last_seen_at < oldest:
                await self._drop(worker.worker_id, record)
            else:
                workers.append(worker)
        return workers

    async def live_sessions(self) -> Mapping[str, str]:
        with redis_errors():
            workers: Any = await self._redis.hkeys(_WORKERS)
            sessions = await self._sessions(workers)
        return {worker_id.decode(): session.decode() for worker_id, session in sessions.items()}

    async def _sessions(self, workers: Sequence[bytes]) -> dict[bytes, bytes]:
        if not workers:
            return {}
        found: Any = await self._redis.mget([_session_key(worker_id.decode()) for worker_id in workers])
        return {worker_id: session for worker_id, session in zip(workers, found, strict=True) if session}

    async def _drop(self, worker_id: str, record: bytes) -> None:
        with redis_errors():
            await self._forget(keys=[_WORKERS, _session_key(worker_id), _DRAINED], args=[worker_id, record])


def _session_key(worker_id: str) -> str:
    return f"{_PREFIX}session:{worker_id}"


def _renewal(worker: Presence, lease_ttl: timedelta | None, *, stream: str) -> dict[str, Any]:
    return {
        "keys": [_WORKERS, _session_key(worker.worker_id)],
        "args": [
            worker.worker_id,
            worker.session_id,
            _encode(worker),
            0 if lease_ttl is None else _milliseconds(lease_ttl),
            stream,
        ],
    }


def _milliseconds(span: timedelta) -> int:
    return max(1, span // timedelta(milliseconds=1))


def _encode(worker: Presence) -> bytes:
    return msgspec.json.encode(worker)


def _decode(record: bytes) -> Presence:
    return msgspec.json.decode(record, type=Presence)


def _seen(record: bytes, drained: bytes | None, session: bytes | None) -> Presence:
    """What a worker said of itself, and what the registry knows better."""
    worker = _decode(record)
    return msgspec.structs.replace(
        worker,
        draining=worker.draining or drained == worker.instance.encode(),
        offline=session != worker.session_id.encode(),
    )


def _over(worker: Presence) -> LeaseLost:
    return LeaseLost(
        f"session {worker.session_id} of worker {worker.worker_id!r} is over: it was not renewed in time,"
        " or another one replaced it",
        hint="Register again; what the worker was running has been given to others.",
    )


def _taken(holder: Presence) -> AlreadyExists:
    return AlreadyExists(
        f"a worker {holder.worker_id!r} is already running on {holder.hostname}, registered at"
        f" {holder.registered_at:%Y-%m-%d %H:%M:%S} UTC and last heard of at {holder.last_seen_at:%H:%M:%S}",
        hint="Give this one another id (`fleetest worker --id NAME`), or stop the other one first.",
    )
