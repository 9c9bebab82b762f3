"""A real Redis for those tests of the master's core that need one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fleetest.master.queue.embedded_redis import EmbeddedRedis
from tests.tools.core import Core, open_core


@pytest.fixture
async def embedded_redis(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    async with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def core(tmp_path: Path, embedded_redis: EmbeddedRedis) -> AsyncIterator[Core]:
    async with open_core(tmp_path, embedded_redis.url) as core:
        yield core
