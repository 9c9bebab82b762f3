"""The connection to Redis, and what its failures mean to everybody else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AskError,
    ChildDeadlockedError,
    ClusterError,
    ConnectionError,  # noqa: A004 - redis-py's own; the builtin is an OSError and mapped as such
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,  # noqa: A004 - likewise
    TryAgainError,
)

from fleetest.common.ending import no_lost_cancellation
from fleetest.common.errors import DependencyUnavailable, InvalidRequest

__all__ = ["connect", "redis_errors"]

_UNAVAILABLE: Final = (
    AskError,  # and MovedError: the cluster is being resharded
    ChildDeadlockedError,
    ClusterError,
    ConnectionError,  # and authentication, loading, too many connections
    NoPermissionError,
    OSError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TimeoutError,
    TryAgainError,
)

_UNAVAILABLE_REPLIES: Final = ("BUSY", "DENIED", "MISCONF", "NOREPLICAS", "UNKILLABLE")
"""First words of replies that mean "not now", for which redis-py has no class of its own."""


def connect(url: str) -> Redis:
    """
    A client of the Redis at `redis://`, `rediss://` or `unix://`; it connects when it is first used.

    A command that meets a broken connection is sent again a few times within a second, so that a restart goes by
    unnoticed. It may thus be executed twice: what we send is safe to repeat.

    Raises:
        InvalidRequest: this is no URL of a Redis.
    """
    try:
        return Redis.from_url(
            url,
            decode_responses=False,  # records are binary
            socket_timeout=10,
            socket_connect_timeout=5,
            health_check_interval=30,
            retry=Retry(ExponentialBackoff(cap=0.4, base=0.02), retries=5),
        )
    except ValueError as error:
        raise InvalidRequest(
            f"not the URL of a Redis: {error}",
            hint="FLEETEST_REDIS_URL reads redis://host:6379/0, rediss://host:6380/0 or unix:///path/to/socket",
        ) from error


@contextmanager
def redis_errors() -> Iterator[None]:
    """
    Raise `DependencyUnavailable` for whatever says that Redis cannot serve us now.

    What is left, such as an error in one of our scripts, is a defect of ours and passes unchanged.
    """
    with no_lost_cancellation():
        try:
            yield
        except _UNAVAILABLE as error:
            raise _unavailable(error) from error
        except RedisError as error:
            if isinstance(error, ResponseError) and str(error).startswith(_UNAVAILABLE_REPLIES):
                raise _unavailable(error) from error
            raise


def _unavailable(error: Exception) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"Redis does not serve us: {error or type(error).__name__}",
        hint="Is it running, and does FLEETEST_REDIS_URL name it? Nothing is lost: work goes on when it is back.",
    )
