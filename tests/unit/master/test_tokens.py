"""Tokens on a real store, with the hands of the clock in the test's."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from fleetest.common.clock import ManualClock
from fleetest.common.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from fleetest.master.access import token_book
from fleetest.master.access.gatekeeper import Gatekeeper
from fleetest.master.access.methods import check_method
from fleetest.master.access.open_streams import OpenStreams
from fleetest.master.access.principals import ANYBODY, Access, Audience, Principal
from fleetest.master.access.token_book import TokenBook, TokenOrder
from fleetest.master.access.tokens import TokenKind, TokenText
from fleetest.master.store.sqlite import SqliteStore
from fleetest.v1 import blob_pb2, fleet_pb2, run_pb2, worker_pb2

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
MEMORY = timedelta(seconds=5)
CLIENT = TokenOrder(kind=TokenKind.CLIENT, description="nightly")
JOIN = TokenOrder(kind=TokenKind.JOIN)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOON)


@pytest.fixture
async def books(tmp_path: Path, clock: ManualClock) -> AsyncIterator[tuple[TokenBook, TokenBook]]:
    """Of two masters that share a store."""
    async with AsyncExitStack() as stores:
        yield tuple(
            [
                TokenBook(
                    await stores.enter_async_context(await SqliteStore.open(tmp_path / "store.sqlite")),
                    clock,
                    memory=MEMORY,
                )
                for _ in range(2)
            ]
        )


@pytest.fixture
def book(books) -> TokenBook:
    return books[0]


async def test_token_admits_as_what_it_was_made_for_at_every_master(books):
    order = TokenOrder(kind=TokenKind.CLIENT, description="nightly", project="shop", access=Access.READ)

    token, text = await books[0].create(order, by="root")
    principal = await books[1].verify(text.reveal())

    assert re.fullmatch(rf"flt_client_{token.token_id}_[0-9a-f]{{64}}", text.reveal())
    assert principal == Principal(
        name=f"client token {token.token_id} (nightly)",
        audiences=frozenset([Audience.CLIENT]),
        token_id=token.token_id,
        access=Access.READ,
        project="shop",
    )


async def test_secret_is_neither_kept_nor_shown(book, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as logged:
        token, text = await book.create(CLIENT, by="root")
        await book.revoke(token.token_id, by="root")
        with pytest.raises(Unauthenticated) as refused:
            await book.verify(text.reveal())

    secret = text.reveal().rpartition("_")[2]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    shown = f"{token!r} {text!r} {logged} {caplog.text} {refused.value}"
    assert token.token_id.encode() in stored
    assert secret.encode() not in stored
    assert secret not in shown
    assert [event["event"] for event in logged] == ["token_created", "token_revoked"]


async def test_wrong_token_is_refused_in_the_same_words_whatever_is_wrong(book):
    token, text = await book.create(CLIENT, by="root")
    right = text.reveal()
    guesses = {
        "a wrong secret": right[:-1] + ("0" if right[-1] != "0" else "1"),
        "an id that does not exist": right.replace(token.token_id, "0" * 12),
        "another kind": right.replace("_client_", "_join_"),
        "cut off": right[:-1],
        "garbage": "flt_client_\x00",
        "upper case": right.upper(),
        "long": right + "0" * 10_000,
        "a digest": token.digest,
    }

    messages = set()
    for what, guess in guesses.items():
        with pytest.raises(Unauthenticated) as refused:
            raise AssertionError(what, await book.verify(guess))
        messages.add(str(refused.value))

    assert len(messages) == 1


async def test_token_expires_to_the_second(book, clock):
    token, text = await book.create(TokenOrder(kind=TokenKind.JOIN, lifetime=timedelta(hours=1)), by="root")

    clock.advance(timedelta(minutes=59, seconds=59))
    await book.verify(text.reveal())
    clock.advance(timedelta(seconds=1))

    with pytest.raises(Unauthenticated, match=r"expired at 2026-11-27T13:00:00\+00:00"):
        await book.verify(text.reveal())
    assert await book.list() == []
    assert await book.list(include_ended=True) == [token]


async def test_revoked_token_is_refused_at_once_here_and_soon_elsewhere(books, clock):
    token, text = await books[0].create(CLIENT, by="root")
    await books[1].verify(text.reveal())

    await books[0].revoke(token.token_id, by="ada")
    with pytest.raises(Unauthenticated, match="was revoked at 2026-11-27T12:00:00"):
        await books[0].verify(text.reveal())
    clock.advance(MEMORY)

    with pytest.raises(Unauthenticated, match="was revoked"):
        await books[1].verify(text.reveal())


async def test_a_stream_is_looked_after_without_trust_in_memory(books):
    token, text = await books[0].create(CLIENT, by="root")
    await books[1].verify(text.reveal())
    await books[0].revoke(token.token_id, by="root")

    with pytest.raises(Unauthenticated, match="was revoked"):
        await books[1].check_ended(token.token_id)


async def test_streams_go_on_while_the_store_does_not_answer_and_end_when_it_says_so(tmp_path, clock):
    async with await SqliteStore.open(tmp_path / "store.sqlite") as store:
        book = TokenBook(store, clock, memory=MEMORY)
        token, text = await book.create(CLIENT, by="root")
        principal = await book.verify(text.reveal())
        streams = OpenStreams(book, MEMORY)
        with structlog.testing.capture_logs() as logged:
            async with streams.hold(principal):
                await store.close()
                await streams._look(token.token_id)

    async with await SqliteStore.open(tmp_path / "store.sqlite") as store:
        streams = OpenStreams(TokenBook(store, clock, memory=MEMORY), MEMORY)
        await TokenBook(store, clock, memory=MEMORY).revoke(token.token_id, by="root")
        with pytest.raises(Unauthenticated, match="was revoked"):
            await _follow(streams, principal)

    assert [event["event"] for event in logged] == ["token_not_checked"]


async def _follow(streams: OpenStreams, principal: Principal) -> None:
    async with streams.hold(principal):
        await streams._look(principal.token_id)
        await asyncio.Event().wait()


async def test_revoking_twice_leaves_the_first_time(book, clock):
    token, _ = await book.create(CLIENT, by="root")

    first = await book.revoke(token.token_id, by="ada")
    clock.advance(timedelta(hours=1))
    second = await book.revoke(token.token_id, by="bob")

    assert (second.revoked_at, second.revoked_by) == (first.revoked_at, "ada") == (NOON, "ada")
    with pytest.raises(NotFound, match="no token 'nonesuch'"):
        await book.revoke("nonesuch", by="root")


async def test_tokens_are_listed_newest_first(book, clock):
    for description in ("old", "new"):
        await book.create(TokenOrder(kind=TokenKind.CLIENT, description=description), by="root")
        clock.advance(timedelta(seconds=1))

    assert [token.description for token in await book.list()] == ["new", "old"]


async def test_only_so_many_workers_join_and_those_again_and_again(books):
    _, text = await books[0].create(TokenOrder(kind=TokenKind.JOIN, most_workers=2), by="root")
    principal = await books[0].verify(text.reveal())

    for number, worker_id in enumerate(["a", "b", "a", "b"]):
        await books[number % 2].count_worker(principal, worker_id)

    with pytest.raises(Forbidden, match="has let in its 2 workers"):
        await books[1].count_worker(principal, "c")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"description": "two\nlines"}, "one line"),
        ({"description": "x" * 201}, "at most 200"),
        ({"lifetime": timedelta()}, "live for some time"),
        ({"lifetime": timedelta.max}, "cannot live so long"),
        ({"project": "shop", "access": Access.ADMIN}, "cannot be limited to a project"),
        ({"most_workers": -1}, "not -1"),
        ({"required_labels": {str(number): "" for number in range(21)}}, "20 labels"),
    ],
)
async def test_token_that_makes_no_sense_is_not_made(book, wrong, message):
    with pytest.raises(InvalidRequest, match=message):
        await book.create(TokenOrder(kind=TokenKind.CLIENT, **wrong), by="root")

    assert await book.list() == []


async def test_guesses_do_not_fill_the_memory(book, monkeypatch):
    monkeypatch.setattr(token_book, "_MOST_REMEMBERED", 40)
    _, text = await book.create(CLIENT, by="root")
    for _ in range(50):
        with pytest.raises(Unauthenticated):
            await book.verify(TokenText.new(TokenKind.CLIENT).reveal())

    assert len(book._remembered) <= 40
    assert (await book.verify(text.reveal())).audiences == {Audience.CLIENT}


# -- who may call what

METHODS = {
    f"/{service.full_name}/{method.name}"
    for module in (blob_pb2, fleet_pb2, run_pb2, worker_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
ADMINISTRATION = {
    f"/fleetest.v1.FleetService/{name}"
    for name in ("DrainWorker", "CreateJoinToken", "CreateClientToken", "ListTokens", "RevokeToken")
}
JOINING = {f"/fleetest.v1.WorkerService/{name}" for name in ("Register", "Session")}
WRITING = {
    f"/fleetest.v1.RunService/{name}"
    for name in ("SubmitRun", "StartRuns", "ImportRun", "RetryRun", "CancelRun", "InvalidateCache", "DeleteArtifacts")
}
FILES = {method for method in METHODS if method.startswith("/fleetest.v1.BlobService/")}


def allowed(principal: Principal) -> set[str]:
    methods = set()
    for method in METHODS:
        try:
            check_method(principal, method)
        except Forbidden:
            continue
        methods.add(method)
    return methods


def a_client(access: Access) -> Principal:
    return Principal(name="c", audiences=frozenset([Audience.CLIENT]), access=access)


def test_every_method_is_for_somebody_and_no_more_than_meant():
    reader, writer, administrator = (allowed(a_client(access)) for access in Access)
    worker = allowed(Principal(name="w", audiences=frozenset([Audience.WORKER])))

    assert administrator == METHODS - JOINING
    assert writer == administrator - ADMINISTRATION
    assert reader == writer - WRITING - (FILES - {"/fleetest.v1.BlobService/DownloadBlobs"})
    assert worker == JOINING | FILES
    assert allowed(ANYBODY) == METHODS


def test_method_that_is_new_is_for_administrators():
    with pytest.raises(Forbidden, match="needs admin"):
        check_method(a_client(Access.WRITE), "/fleetest.v1.RunService/Nothing")


async def test_settings_tokens_are_roots_and_hold_when_the_book_is_empty(book):
    keeper = Gatekeeper({Audience.CLIENT: "client", Audience.WORKER: "join"}, book)

    client = await keeper.admit("/fleetest.v1.FleetService/CreateJoinToken", "Bearer client")
    worker = await keeper.admit("/fleetest.v1.WorkerService/Register", "Bearer join")

    assert (client.name, worker.name) == ("root client token", "root worker token")
    with pytest.raises(Unauthenticated, match="does not know the token"):
        await keeper.admit("/fleetest.v1.WorkerService/Register", "Bearer joi")


async def test_refusals_are_logged_without_the_token(book):
    keeper = Gatekeeper({Audience.CLIENT: "client"}, book)

    with structlog.testing.capture_logs() as logged, pytest.raises(Unauthenticated):
        await keeper.admit("/fleetest.v1.RunService/GetRun", "Bearer guessed-wrong")

    assert [(event["event"], event["log_level"]) for event in logged] == [("call_refused", "warning")]
    assert "guessed" not in str(logged)


def test_worker_beyond_the_scope_is_told_what_to_change():
    principal = Principal(
        name="the token",
        audiences=frozenset([Audience.WORKER]),
        worker_id_prefix="ci-",
        required_labels={"pool": "ci"},
    )

    principal.check_worker("ci-1", {"pool": "ci", "os": "linux"})

    with pytest.raises(Forbidden, match=r"begin with 'ci-', not 'x'\n.*--id"):
        principal.check_worker("x", {"pool": "ci"})
    with pytest.raises(Forbidden, match=r"workers with pool=ci only\n.*--label pool=ci"):
        principal.check_worker("ci-1", {"pool": "other"})
