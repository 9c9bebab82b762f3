"""`fleetest health`: for what watches over masters and workers, such as a container's health check."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import click

from fleetest.client.cli.connecting import connected, master_option, running
from fleetest.client.connection import Persistence
from fleetest.common.errors import DependencyUnavailable

__all__ = ["health"]

_PATIENCE: Final = timedelta(seconds=5)
_EACH_ADDRESS_ONCE: Final = Persistence(patience=timedelta())


@click.command()
@master_option
def health(*, master: str) -> None:
    """
    Ask whether a master serves; the exit code is 0 when one does.

    It is the standard gRPC health check, and needs no token. Of several addresses one that serves is enough.
    """
    running(_ask(master))
    click.echo("serving")


async def _ask(master: str) -> None:
    try:
        async with (
            asyncio.timeout(_PATIENCE.total_seconds()),
            connected(master, persistence=_EACH_ADDRESS_ONCE, on_trouble=lambda _line: None) as client,
        ):
            await client.check_health()
    except TimeoutError:
        raise DependencyUnavailable(
            f"no master answers within {_PATIENCE.total_seconds():.0f} seconds", hint="look at its log"
        ) from None
