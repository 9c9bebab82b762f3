"""`fleetest token`: who may use the cluster, and who may join it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import click

from fleetest.client.cli.connecting import connected, master_option, running, say
from fleetest.client.cli.output import json_form, output_option, print_json, print_table
from fleetest.client.values import Token, TokenAccess, TokenKind
from fleetest.client.view.harmless import one_line
from fleetest.client.view.words import ago, ahead

if TYPE_CHECKING:
    from fleetest.common.settings import Secret

__all__ = ["create", "ls", "revoke", "token"]

_LONGEST: Final = timedelta(days=3650)
_ONLY_FOR: Final = {
    TokenKind.CLIENT: ("worker_id_prefix", "labels", "most_workers"),
    TokenKind.JOIN: ("project", "access"),
}
_OPTIONS: Final = {
    "worker_id_prefix": "--worker-prefix",
    "labels": "--require-label",
    "most_workers": "--max-workers",
    "project": "--project",
    "access": "--access",
}


@click.group()
def token() -> None:
    """Create, list and revoke the tokens that let clients and workers in."""


@token.command()
@click.argument("kind", type=click.Choice([kind.value for kind in TokenKind]))
@click.option("-d", "--description", default="", metavar="TEXT", help="What it is for; shown in lists and logs.")
@click.option("--expires", metavar="DURATION", help="It ends after so long: 12h, 30d. [default: never]")
@click.option("--project", metavar="NAME", help="client: only this project's runs. [default: all]")
@click.option(
    "--access",
    type=click.Choice([access.value for access in TokenAccess]),
    help="client: read runs; write: submit and cancel them too; admin: workers and tokens too. [default: write]",
)
@click.option("--worker-prefix", "worker_id_prefix", metavar="TEXT", help="join: how the ids of workers must begin.")
@click.option(
    "--require-label", "labels", metavar="KEY=VALUE", multiple=True, help="join: workers must offer it; repeatable."
)
@click.option("--max-workers", "most_workers", type=click.IntRange(1), help="join: so many may join. [default: any]")
@master_option
@output_option
def create(*, kind: str, description: str, expires: str | None, master: str, output: str, **scope: object) -> None:
    """
    Create a token and print it, alone on standard output. It cannot be shown again.

    KIND is client, for those who submit and follow runs, or join, for workers.
    """
    chosen = TokenKind(kind)
    _check_scope(chosen, scope)
    created, text = running(_create(chosen, description, _lifetime(expires), scope, master))
    if output == "json":
        print_json({**json_form(created), "text": text.reveal()})
        return
    until = f"until {created.expires_at:%Y-%m-%d %H:%M} UTC" if created.expires_at else "until it is revoked"
    say(f"{chosen.value} token {created.token_id}, good {until}; keep it now, it is not shown again:")
    click.echo(text.reveal())


@token.command("ls")
@click.option("-a", "--all", "include_ended", is_flag=True, help="Also those that expired or were revoked.")
@master_option
@output_option
def ls(*, include_ended: bool, master: str, output: str) -> None:
    """List tokens, newest first. What is secret about them is not known any more."""
    found = running(_list(master, include_ended=include_ended))
    if output == "json":
        print_json(found)
        return
    now = datetime.now(UTC)
    print_table(
        ("token", "kind", "scope", "description", "created", "expires"),
        (_row(each, now) for each in found),
        prose=("scope",),
        cut=("description",),
        empty="no tokens; create one with: fleetest token create",
    )


@token.command()
@click.argument("token_ids", metavar="TOKEN...", nargs=-1, required=True)
@master_option
def revoke(*, token_ids: tuple[str, ...], master: str) -> None:
    """End tokens, named by their ids. What is open with them ends within seconds. Harmless when repeated."""
    running(_revoke(token_ids, master))


def _check_scope(kind: TokenKind, scope: Mapping[str, object]) -> None:
    for name in _ONLY_FOR[kind]:
        if scope[name]:
            raise click.UsageError(f"{_OPTIONS[name]} has no meaning for a {kind.value} token")


def _lifetime(expires: str | None) -> timedelta | None:
    from fleetest.common.suite.durations import parse_duration

    return None if expires is None else parse_duration(expires, longest=_LONGEST)


async def _create(
    kind: TokenKind, description: str, lifetime: timedelta | None, scope: Mapping[str, object], master: str
) -> tuple[Token, Secret]:
    async with connected(master) as client:
        if kind is TokenKind.CLIENT:
            return await client.create_client_token(
                description=description,
                lifetime=lifetime,
                project=str(scope["project"] or ""),
                access=TokenAccess(str(scope["access"] or "write")),
            )
        return await client.create_join_token(
            description=description,
            lifetime=lifetime,
            worker_id_prefix=str(scope["worker_id_prefix"] or ""),
            required_labels=_labels(scope["labels"]),
            most_workers=int(str(scope["most_workers"] or 0)),
        )


def _labels(given: object) -> Mapping[str, str]:
    from fleetest.common.settings import pairs

    assert isinstance(given, tuple)
    try:
        return pairs(",".join(given))
    except ValueError as error:
        raise click.UsageError(f"--require-label: {error}") from error


async def _list(master: str, *, include_ended: bool) -> list[Token]:
    async with connected(master) as client:
        return await client.tokens(include_ended=include_ended)


async def _revoke(token_ids: tuple[str, ...], master: str) -> None:
    async with connected(master) as client:
        for given in token_ids:
            revoked = await client.revoke_token(_id_of(given))
            say(f"{revoked.token_id} is revoked")


def _id_of(given: str) -> str:
    """Who pastes the token itself means its id; the secret need not travel again."""
    return given.split("_")[2] if given.startswith("flt_") and given.count("_") > 1 else given


def _row(each: Token, now: datetime) -> tuple[str, ...]:
    return (
        each.token_id,
        each.kind.value,
        one_line(_scope(each), limit=1000),
        one_line(each.description),
        ago(each.created_at, now),
        _end(each, now),
    )


def _scope(each: Token) -> str:
    if each.access is not None:
        return f"{each.access.value} {each.project or 'all projects'}"
    parts = [f"{key}={value}" for key, value in sorted(each.required_labels.items())]
    if each.worker_id_prefix:
        parts.insert(0, f"{each.worker_id_prefix}*")
    if each.most_workers:
        parts.append(f"{each.workers_joined} of {each.most_workers} joined")
    return ", ".join(parts) or "any worker"


def _end(each: Token, now: datetime) -> str:
    if each.revoked_at is not None:
        return f"revoked {ago(each.revoked_at, now)}"
    if each.expires_at is None:
        return "never"
    return f"expired {ago(each.expires_at, now)}" if each.expires_at <= now else ahead(each.expires_at, now)
