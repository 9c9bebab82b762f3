"""`fleetest retry`: run again what did not pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from fleetest.client.cli.connecting import (
    any_cluster,
    connected,
    invocation,
    master_option,
    project_option,
    running,
)
from fleetest.client.cli.following_options import FollowingOptions, following_options, present_user
from fleetest.client.cli.run_ids import optional_run_argument
from fleetest.common.secrets import read_secrets

__all__ = ["retry"]


@click.command()
@optional_run_argument
@click.option("--all", "everything", is_flag=True, help="All cases, also those that passed.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="Give tasks this environment variable.")
@click.option("--idempotency-key", default="", metavar="KEY", help="Retrying again with it finds the same run.")
@click.option("-d", "--detach", is_flag=True, help="Print the new run's id, and do not wait.")
@project_option
@master_option
@following_options
def retry(
    *,
    run_id: str,
    secrets: Sequence[str],
    project: str,
    master: str,
    detach: bool,
    following: FollowingOptions,
    **options: Any,
) -> int:
    """
    Submit a run again, on the same files: the cases that did not pass, or all.

    RUN is an id or the beginning of one; without it, the latest run. Secrets are not kept: give them again.
    """
    following.check()
    values = read_secrets(secrets, invocation().environment)
    return running(_retry(run_id, {"secrets": values, **options}, project, master, following, detach=detach))


async def _retry(
    run_id: str, wanted: dict[str, Any], project: str, master: str, following: FollowingOptions, *, detach: bool
) -> int:
    environment = invocation().environment
    async with connected(master, project=project, embedded=any_cluster) as client:
        run = await client.get_run(run_id)
        submission = await client.retry(run.run_id, user=present_user(), **wanted)
        if detach:
            click.echo(submission.run_id)
            return 0
        return await following.follow(client, submission.run_id, environment)
