"""`fleetest version`: what runs here, and what answers there."""

from __future__ import annotations

import click

from fleetest.client.cli.connecting import connected, invocation, master_option, running
from fleetest.client.cli.output import output_option, print_json
from fleetest.client.values import ServerInfo
from fleetest.common.protocol import PROTOCOL
from fleetest.common.version import version as installed_version

__all__ = ["version"]


@click.command()
@master_option
@output_option
def version(*, master: str, output: str) -> None:
    """Print the version of this client, and of the master when one is named or runs here."""
    server = running(_ask(master))
    if output == "json":
        print_json({"version": installed_version(), "protocol": PROTOCOL, "master": server})
        return
    click.echo(f"fleetest {installed_version()}, protocol {PROTOCOL}")
    if server is not None:
        click.echo(
            f"master   {server.version}, protocol {server.oldest_protocol} to {server.protocol}, "
            f"{server.workers} workers, {server.active_runs} active runs"
        )


async def _ask(master: str) -> ServerInfo | None:
    """`None` when no master is named and none runs here: the client's own version is an answer too."""
    from fleetest.client.embedded import running_cluster

    settings = invocation().settings
    if not (master or settings.master) and running_cluster(settings.data) is None:
        return None
    async with connected(master) as client:
        return await client.server_info()
