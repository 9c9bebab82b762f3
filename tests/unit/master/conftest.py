"""A real Redis for those tests of the master's core that need one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.shared_redis import SharedRedis, shared_redis
from tests.tools.core import Core, open_core


@pytest.fixture(scope="session")
def redis_of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRedis]:
    with shared_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def embedded_redis(redis_of_all_tests: SharedRedis) -> SharedRedis:
    """Empty when a test begins; the test may stop it."""
    redis_of_all_tests.start_empty()
    return redis_of_all_tests


@pytest.fixture
async def core(tmp_path: Path, embedded_redis: SharedRedis) -> AsyncIterator[Core]:
    async with open_core(tmp_path, embedded_redis.url) as core:
        yield core
