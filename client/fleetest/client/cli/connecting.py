"""From a command's options to a client."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from fleetest.client.cli.invocation import Invocation
from fleetest.client.view.harmless import harmless
from fleetest.common.errors import DependencyUnavailable

if TYPE_CHECKING:
    from fleetest.client.async_client import AsyncClient
    from fleetest.client.connection import Persistence
    from fleetest.client.embedded import EmbeddedCluster
    from fleetest.common.settings import Secret
    from fleetest.common.tls import ClientTls

__all__ = [
    "Place",
    "any_cluster",
    "connected",
    "find_cluster",
    "invocation",
    "master_option",
    "project_option",
    "running",
    "say",
]

_Answer = TypeVar("_Answer")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def master_option(command: _Command) -> _Command:
    """`--master`, for every command that asks a cluster."""
    return click.option(
        "--master",
        metavar="ADDRESS",
        default="",
        help="host:port or unix:///path; several parted by commas. [env: FLEETEST_MASTER]",
    )(command)


def project_option(command: _Command) -> _Command:
    """`--project`, for commands about a project's runs."""
    return click.option("--project", metavar="NAME", default="", help="Whose runs are meant. [env: FLEETEST_PROJECT]")(
        command
    )


def invocation() -> Invocation:
    """What the present command was given."""
    found = click.get_current_context().obj
    assert isinstance(found, Invocation)
    return found


def say(line: str) -> None:
    """
    A line for people, on standard error.

    Written to the stream as it is now: a live area puts itself in its place, and `click.echo` would write past it.
    """
    sys.stderr.write(f"{harmless(line)}\n")
    sys.stderr.flush()


def running(work: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a command's asynchronous part."""
    return asyncio.run(work)


def any_cluster(data_directory: Path) -> EmbeddedCluster:
    """The user's own cluster, started when none runs, which is said."""
    from fleetest.client.embedded import running_cluster, start_cluster

    cluster = running_cluster(data_directory)
    if cluster is not None:
        say(f"using your cluster on this machine ({cluster.address}); `fleetest down` stops it")
        return cluster
    say("starting a cluster on this machine; `fleetest down` stops it")
    return start_cluster(data_directory)


def _known_cluster(data_directory: Path) -> EmbeddedCluster:
    from fleetest.client.embedded import running_cluster

    cluster = running_cluster(data_directory)
    if cluster is None:
        raise DependencyUnavailable(
            "no master is named, and no cluster runs on this machine",
            hint="Set FLEETEST_MASTER to a master's address, or start a cluster here: fleetest up",
        )
    return cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where a cluster is, and what lets a client in.

    Args:
        is_own: it is the user's, on this machine: if it does not come back soon, somebody has ended it.
    """

    address: str
    token: Secret
    tls: ClientTls | None
    is_own: bool = False


async def find_cluster(master: str, *, embedded: Callable[[Path], EmbeddedCluster] = _known_cluster) -> Place:
    """
    The cluster that the option or the environment names, or else the user's own.

    Args:
        embedded: finds the user's own cluster in its data directory.
    """
    settings = invocation().settings
    if address := master or settings.master:
        return Place(address=address, token=settings.token, tls=settings.tls)
    cluster = await asyncio.to_thread(embedded, settings.data)
    return Place(address=cluster.address, token=cluster.token, tls=None, is_own=True)


@asynccontextmanager
async def connected(
    master: str | Place,
    *,
    project: str = "",
    embedded: Callable[[Path], EmbeddedCluster] = _known_cluster,
    persistence: Persistence | None = None,
    on_trouble: Callable[[str], None] = say,
) -> AsyncIterator[AsyncClient]:
    """
    A client of a cluster that was found, or else of the one that `find_cluster` finds.

    Args:
        embedded: as `find_cluster` takes it.
        persistence, on_trouble: as the client takes them.
    """
    place = master if isinstance(master, Place) else await find_cluster(master, embedded=embedded)
    # Read when gRPC is loaded: its own complaints, for its developers, would stand before our one line.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from fleetest.client.async_client import AsyncClient
    from fleetest.client.connection import Persistence

    if persistence is None and place.is_own:
        persistence = Persistence(patience_midway=Persistence().patience)
    async with AsyncClient(
        place.address,
        token=place.token.reveal(),
        tls=place.tls,
        project=project or invocation().settings.project,
        persistence=persistence,
        on_trouble=on_trouble,
    ) as client:
        yield client
