"""`fleetest watch`: follow a run that somebody submitted."""

from __future__ import annotations

import click

from fleetest.client.cli.connecting import connected, invocation, master_option, project_option, running
from fleetest.client.cli.following_options import FollowingOptions, following_options
from fleetest.client.cli.run_ids import optional_run_argument

__all__ = ["watch"]


@click.command()
@optional_run_argument
@project_option
@master_option
@following_options
def watch(*, run_id: str, project: str, master: str, following: FollowingOptions) -> int:
    """
    Follow a run from its beginning to its end, also one that has ended. Exits as `fleetest run` does.

    RUN is an id or the beginning of one; without it, the latest run.
    """
    following.check()
    return running(_watch(run_id, project, master, following))


async def _watch(run_id: str, project: str, master: str, following: FollowingOptions) -> int:
    async with connected(master, project=project) as client:
        found = await client.get_run(run_id)
        return await following.follow(client, found.run_id, invocation().environment)
