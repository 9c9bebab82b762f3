"""
Named resources in Redis: who holds what.

The keys are those of the queue's partition (`redis_queue.py`), since its claims take what is held here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from fleetest.common.ids import new_token
from fleetest.master.queue.connection import redis_errors
from fleetest.master.queue.partition import Partition, Script
from fleetest.master.queue.ports import ResourceHold, ResourceView
from fleetest.master.queue.records import RecordedUse, entry_id, ids_of, resource_of, run_key, use_of, uses_of

__all__ = ["RedisResourceLedger"]

_hold_decoder: Final = msgspec.msgpack.Decoder(tuple[int, str, tuple[RecordedUse, ...]])
_line_decoder: Final = msgspec.msgpack.Decoder(tuple[str, str, float, str])


class RedisResourceLedger:
    """
    Fulfils `ResourceLedger`.

    Args:
        partition: the queue's.
    """

    def __init__(self, redis: Redis, *, partition: str = "0") -> None:
        self._redis = redis
        self._partition = Partition(redis, partition)

    async def keep(self, holds: Sequence[ResourceHold], worker_ids: Sequence[str]) -> Sequence[ResourceHold]:
        claims = [
            (run_key(each.run_id), _id(each), worker, each.token)
            for each, worker in zip(holds, worker_ids, strict=True)
        ]
        runs = list(dict.fromkeys(run for run, *_ in claims))
        numbers: Sequence[int] = await self._partition.call(Script.KEEP, {"claims": claims}, runs=runs)
        return [holds[number - 1] for number in numbers]

    async def give_back(self, holds: Sequence[ResourceHold]) -> None:
        await self._partition.call(Script.GIVE_BACK, {"holds": [(_id(each), each.token) for each in holds]})

    async def restore(self, holds: Sequence[ResourceHold], *, recovery: str = "") -> bool:
        items = [(_id(each), each.token, uses_of(each.project, each.uses)) for each in holds]
        return bool(await self._partition.call(Script.RESTORE, {"recovery": recovery, "holds": items}))

    async def recover(self) -> str:
        recovery = new_token()
        with redis_errors():
            await self._redis.hset(self._partition.key("resources"), "~", recovery)
        return recovery

    async def view(self) -> ResourceView:
        with redis_errors():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hgetall(self._partition.key("holds"))
                pipeline.hgetall(self._partition.key("resources"))
                holds, resources = await pipeline.execute()
        return ResourceView(
            known=b"!" in resources,
            holds=[_hold(identifier, raw) for identifier, raw in sorted(holds.items())],
            first_in_line=_first_in_line(resources),
        )


def _id(hold: ResourceHold) -> str:
    return entry_id(hold.run_id, hold.shard_id)


def _hold(identifier: bytes, raw: bytes) -> ResourceHold:
    token, _, uses = _hold_decoder.decode(raw)
    run_id, shard_id = ids_of(identifier)
    project = next((found for use in uses if (found := resource_of(use.name)[0])), "")
    return ResourceHold(run_id=run_id, shard_id=shard_id, token=token, project=project, uses=tuple(map(use_of, uses)))


def _first_in_line(resources: Mapping[bytes, Any]) -> Mapping[tuple[str, str], tuple[str, str]]:
    return {
        resource_of(field.decode()[1:]): ids_of(_line_decoder.decode(raw)[3].encode())
        for field, raw in resources.items()
        if field.startswith(b"?")
    }
