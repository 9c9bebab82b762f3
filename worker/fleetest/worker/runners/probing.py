"""Whether a service is ready: one look, and what it saw."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from fleetest.common.tasks import Probe

__all__ = ["HOST", "free_port", "is_taken", "look"]

HOST: Final = "127.0.0.1"
_PATIENCE_SECONDS: Final = 5.0


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def is_taken(port: int) -> bool:
    """Whether somebody listens there."""
    return not await _refusal_of(port)


async def look(probe: Probe, port: int, run_shell: Callable[[str], Awaitable[str]]) -> str:
    """
    Why the service is not ready; empty when it is.

    Args:
        run_shell: runs a text in the service's environment, and answers why it failed; empty when it did not.
    """
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            if probe.shell:
                return await run_shell(probe.shell)
            if probe.http:
                return await asyncio.to_thread(_answer, probe, port)
            return await _refusal_of(port)
    except TimeoutError:
        return f"there was no answer within {_PATIENCE_SECONDS:g} seconds"


async def _refusal_of(port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError as error:
        return f"port {port} takes no connection: {error.strerror or error}"
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ""


def _answer(probe: Probe, port: int) -> str:
    connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", probe.http, headers={"Connection": "close", "User-Agent": "fleetest"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"GET {probe.http}: {getattr(error, 'strerror', None) or str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == probe.status else f"GET {probe.http} answered {status}, not {probe.status}"
