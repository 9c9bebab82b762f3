"""What becomes of redis-py's errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import exceptions

from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.master.queue.connection import connect, redis_errors

# What only a defect of ours can cause. Everything else says that Redis does not serve us now, or is of a class that
# redis-py uses for that too (RedisClusterException).
DEFECTS = {
    "AuthenticationWrongNumberOfArgsError",
    "ClusterCrossSlotError",
    "DataError",
    "ExecAbortError",
    "IncorrectPolicyType",
    "InvalidResponse",
    "LockError",
    "LockNotOwnedError",
    "ModuleError",
    "NoScriptError",
    "NoSuchFieldsetError",
    "PubSubError",
    "RedisError",
    "ResponseError",
    "WatchError",
}

CLASSES = {
    name: value
    for name, value in vars(exceptions).items()
    if isinstance(value, type) and issubclass(value, Exception) and value.__module__ == exceptions.__name__
}


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - DEFECTS))
def test_error_of_a_redis_that_does_not_serve_us_is_mapped(name: str) -> None:
    error = CLASSES[name].__new__(CLASSES[name])
    error.args = ("it is away",)

    with pytest.raises(DependencyUnavailable, match="it is away") as mapped, redis_errors():
        raise error

    assert mapped.value.hint


@pytest.mark.parametrize("name", sorted(CLASSES.keys() & DEFECTS))
def test_error_that_only_a_defect_can_cause_passes(name: str) -> None:
    with pytest.raises(CLASSES[name]), redis_errors():
        raise CLASSES[name]("defect")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        TimeoutError("slow"),
        exceptions.ResponseError("MISCONF Redis is configured to save RDB snapshots"),
        exceptions.ResponseError("DENIED Redis is running in protected mode"),
        exceptions.ResponseError("BUSY Redis is busy running a script"),
        exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."),
    ],
)
def test_other_signs_of_a_redis_that_does_not_serve_us_are_mapped(error: Exception) -> None:
    with pytest.raises(DependencyUnavailable), redis_errors():
        raise error


async def test_redis_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path}/none.sock")

    with pytest.raises(DependencyUnavailable, match=r"none\.sock"), redis_errors():
        await client.ping()

    await client.aclose()


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://localhost:port/0"])
def test_what_is_no_url_of_a_redis_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        connect(url)

    assert "redis://" in refusal.value.hint
