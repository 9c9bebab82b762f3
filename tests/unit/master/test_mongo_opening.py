"""How the MongoDB store is opened, brought up to date, and refused, and what is said then."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymongo.errors
import pytest
from bson.errors import InvalidStringData
from pymongo import AsyncMongoClient

from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, FleetestError, InvalidRequest, WrongState
from fleetest.common.ids import new_run_id
from fleetest.common.settings import Secret
from fleetest.master.store.mongo import MongoStore
from fleetest.master.store.mongo_errors import explained
from fleetest.master.store.mongo_schema import INDEXES
from fleetest.master.store.mongo_url import _quotes_credentials, connect, shown, write_concern
from fleetest.master.store.ports import Commit
from tests.support.refusing_mongodb import refusing_mongodb

Client = AsyncMongoClient[dict[str, Any]]

PASSWORD = "hunter2/&"
CREDENTIALS = "ada:hunter2%2F%26@"


@pytest.fixture
async def client(mongodb_url: Secret) -> AsyncIterator[Client]:
    async with AsyncMongoClient[dict[str, Any]](mongodb_url.reveal()) as client:
        yield client


async def _indexes(client: Client) -> dict[str, set[str]]:
    database = client.get_default_database()
    return {name: set(await database[name].index_information()) for name in INDEXES}


ALL_INDEXES = {name: {index.document["name"] for index in indexes} for name, indexes in INDEXES.items() if indexes}


async def test_masters_that_open_a_new_database_at_once_all_have_it_with_every_index(
    mongodb_url: Secret, client: Client
) -> None:
    stores = await asyncio.gather(*(MongoStore.open(mongodb_url) for _ in range(8)))

    for store in stores:
        await store.check()
        await store.close()
    made = await _indexes(client)
    assert {name: made[name] - {"_id_"} for name in ALL_INDEXES} == ALL_INDEXES


async def test_migration_that_was_interrupted_is_finished_by_the_next_master(
    mongodb_url: Secret, client: Client
) -> None:
    async with await MongoStore.open(mongodb_url):
        pass
    database = client.get_default_database()
    await database["meta"].update_one({"_id": "schema"}, {"$set": {"version": 0}})
    await database["output"].drop_indexes()

    async with await MongoStore.open(mongodb_url):
        pass

    assert "by_piece" in (await _indexes(client))["output"]
    assert await database["meta"].find_one({"_id": "schema"}) == {
        "_id": "schema",
        "application": "fleetest",
        "version": 2,
    }


async def test_database_of_a_newer_fleetest_is_refused_and_not_touched(mongodb_url: Secret, client: Client) -> None:
    database = client.get_default_database()
    await database["meta"].insert_one({"_id": "schema", "application": "fleetest", "version": 99})

    with pytest.raises(WrongState, match="newer Fleetest") as refused:
        await MongoStore.open(mongodb_url)

    assert "upgrade" in refused.value.hint
    assert await database.list_collection_names() == ["meta"]


async def test_database_of_another_application_is_refused_and_not_touched(mongodb_url: Secret, client: Client) -> None:
    database = client.get_default_database()
    await database["invoices"].insert_one({"total": 1})

    with pytest.raises(WrongState, match=r"another application's \(it holds invoices\)"):
        await MongoStore.open(mongodb_url)

    assert await database.list_collection_names() == ["invoices"]


async def test_server_that_is_too_old_is_refused(tmp_path: Path) -> None:
    async with refusing_mongodb(tmp_path, {}, version="6.0.19") as url:
        with pytest.raises(WrongState, match=r"MongoDB 6\.0\.19, which is too old\nFleetest needs MongoDB 7\.0"):
            await MongoStore.open(Secret(url))


async def test_unreachable_store_is_said_to_be_so_soon_and_without_its_password() -> None:
    url = f"mongodb://{CREDENTIALS}%2Fno%2Fsuch.sock/fleetest?serverSelectionTimeoutMS=200"
    began = time.monotonic()

    with pytest.raises(DependencyUnavailable, match=r"mongodb:///no/such\.sock/fleetest does not answer") as refused:
        await MongoStore.open(Secret(url))

    assert time.monotonic() - began < 5
    assert "FLEETEST_MONGODB_URL" in refused.value.hint
    assert "Topology" not in str(refused.value)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


async def test_what_is_no_url_of_a_mongodb_is_refused_without_its_password() -> None:
    with pytest.raises(InvalidRequest, match="not the URL of a MongoDB") as refused:
        await MongoStore.open(Secret(f"mongodb:/{CREDENTIALS}host"))

    assert "FLEETEST_MONGODB_URL" in refused.value.hint
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_master_that_cannot_open_its_store_says_why_and_ends(tmp_path: Path) -> None:
    variables = {
        "FLEETEST_MONGODB_URL": f"mongodb://{CREDENTIALS}%2Fno%2Fsuch.sock/?serverSelectionTimeoutMS=200",
        "FLEETEST_REDIS_URL": "unix:///no/such/redis",
        "FLEETEST_DATA_DIR": str(tmp_path),
        "FLEETEST_LISTEN_ADDRESS": "127.0.0.1:0",
    }

    ended = subprocess.run(
        [sys.executable, "-m", "fleetest.master", "master"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 3
    assert "does not answer" in ended.stderr
    assert "FLEETEST_MONGODB_URL" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "hunter2" not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    "url",
    [
        "localhost:27017",
        "http://localhost",
        "redis://localhost",
        "mongodb://",
        "mongodb://host:99999",
        "mongodb://[::1",
        "mongodb://host/a$b",
        "mongodb://host/?unknownOption=1",
        "mongodb://host/?socketTimeoutMS=soon",
        "mongodb://host/?w=0",
        "mongodb://host/?tls=true&tlsCAFile=/no/such/file",
        "mongodb://ada:hunter2/%26@host",
        "mongodb://ada:hunter2@@host",
        "mongodb://ada:hunter2%zz@host",
    ],
)
async def test_url_that_is_none_is_refused_with_a_hint_and_without_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"URL of (a|the) MongoDB") as refused:
        await MongoStore.open(Secret(url))

    assert refused.value.hint
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


async def test_what_is_wrong_with_a_url_is_said_also_when_it_has_a_password() -> None:
    with pytest.raises(InvalidRequest, match="tlscafile"):
        await MongoStore.open(Secret(f"mongodb://{CREDENTIALS}host/?tls=true&tlsCAFile=/no/such/file"))


def test_driver_that_quotes_a_password_is_not_quoted() -> None:
    urls = ["mongodb://ada:hunter2/x@host", "mongodb://ada:%68unter2@host", "mongodb://ada:1?hunter2=x@host"]

    assert all(_quotes_credentials("cannot read 'hunter2'", url) for url in urls)
    assert not _quotes_credentials("cannot read 'host'", urls[0])


async def test_what_the_url_says_comes_before_our_defaults() -> None:
    async with (
        connect(Secret("mongodb://host")) as plain,
        connect(
            Secret("mongodb://host/?w=2&wTimeoutMS=7&journal=false&serverSelectionTimeoutMS=900&retryWrites=false")
        ) as chosen,
    ):
        assert write_concern(plain).document == {"w": "majority", "j": True, "wtimeout": 10_000}
        assert plain.options.server_selection_timeout == 5
        assert plain.options.retry_writes
        assert write_concern(chosen).document == {"w": 2, "j": False, "wtimeout": 7}
        assert chosen.options.server_selection_timeout == pytest.approx(0.9)
        assert not chosen.options.retry_writes


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        (f"mongodb://{CREDENTIALS}one:1,two:2/fleetest?replicaSet=rs0", "mongodb://one:1,two:2"),
        (f"mongodb+srv://{CREDENTIALS}cluster.example.org", "mongodb+srv://cluster.example.org"),
        ("mongodb://%2Frun%2Fmongodb.sock/fleetest?directConnection=true", "mongodb:///run/mongodb.sock"),
    ],
)
def test_url_is_shown_as_its_hosts(url: str, visible: str) -> None:
    assert shown(Secret(url)) == visible


NOT_PRIMARY = {"code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary"}
SECONDARY = {"code": 13435, "codeName": "NotPrimaryNoSecondaryOk", "errmsg": "not primary and secondaryOk=false"}
BLOCKED = {"code": 371, "codeName": "UserWritesBlocked", "errmsg": "User writes blocked"}
FORBIDDEN = {"code": 13, "codeName": "Unauthorized", "errmsg": "not authorized on fleetest"}
WRONG_PASSWORD = {"code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."}
UNCONFIRMED = {"code": 64, "codeName": "WriteConcernTimeout", "errmsg": "waiting for replication timed out"}
FULL = {"code": 14031, "codeName": "OutOfDiskSpace", "errmsg": "no space left on device"}


@pytest.mark.parametrize(
    ("command", "refusal", "expected", "hint"),
    [
        ("find", SECONDARY, "cannot be written", "replicaSet"),
        ("update", NOT_PRIMARY, "cannot be written", "replicaSet"),
        ("update", BLOCKED, "cannot be written", "read-only"),
        ("createIndexes", FORBIDDEN, "does not let our user do this", "readWrite"),
        ("saslStart", WRONG_PASSWORD, "refuses our user or password", "authSource"),
    ],
)
async def test_store_that_refuses_us_is_named_with_what_to_do(
    tmp_path: Path, command: str, refusal: dict[str, Any], expected: str, hint: str
) -> None:
    credentials = CREDENTIALS if command == "saslStart" else ""
    async with refusing_mongodb(tmp_path, {command: refusal}, credentials=credentials) as url:
        with pytest.raises(DependencyUnavailable, match=expected) as refused:
            await MongoStore.open(Secret(url))

    assert hint in refused.value.hint
    assert refusal["errmsg"] in refused.value.message
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("refusal", "error", "expected"),
    [
        (NOT_PRIMARY, DependencyUnavailable, "cannot be written"),
        (FULL, CapacityExceeded, "no room left"),
        ({"ok": 1.0, "n": 0, "writeErrors": [{"index": 0} | FULL]}, CapacityExceeded, "no room left"),
        ({"ok": 1.0, "n": 1, "writeConcernError": UNCONFIRMED}, DependencyUnavailable, "did not confirm in time"),
    ],
)
async def test_commit_that_is_not_taken_is_refused_and_may_be_tried_again(
    tmp_path: Path, refusal: dict[str, Any], error: type[FleetestError], expected: str
) -> None:
    refusals = {}
    commit = Commit(run_id=new_run_id(), position=1, at=datetime.now(UTC), events=b"")

    async with refusing_mongodb(tmp_path, refusals) as url, await MongoStore.open(Secret(url)) as store:
        refusals["insert"] = refusal
        with pytest.raises(error, match=expected):
            await store.append(commit)
        refusals.clear()
        await store.append(commit)


async def test_store_on_a_full_disk_is_not_well(tmp_path: Path) -> None:
    refusals = {}

    async with refusing_mongodb(tmp_path, refusals) as url, await MongoStore.open(Secret(url)) as store:
        refusals["update"] = FULL
        with pytest.raises(DependencyUnavailable, match="no room left"):
            await store.check()


def _reply(code: int) -> dict[str, Any]:
    return {"errmsg": "server's words", "code": code}


# One of every kind that PyMongo can raise while the store is used, and what it is to us; None is a defect of ours.
MEANINGS: dict[type[Exception], tuple[Exception, type[FleetestError] | None]] = {
    type(error): (error, meaning)
    for error, meaning in [
        (pymongo.errors.PyMongoError(""), None),
        (pymongo.errors.ProtocolError(""), None),
        (pymongo.errors.ConnectionFailure("lost"), DependencyUnavailable),
        (pymongo.errors.WaitQueueTimeoutError("busy"), DependencyUnavailable),
        (pymongo.errors.AutoReconnect("lost"), DependencyUnavailable),
        (pymongo.errors.NetworkTimeout("slow"), DependencyUnavailable),
        (pymongo.errors.NotPrimaryError("elsewhere"), DependencyUnavailable),
        (pymongo.errors.ServerSelectionTimeoutError("none"), DependencyUnavailable),
        (pymongo.errors._OperationCancelled("stopped"), DependencyUnavailable),
        (pymongo.errors.ConfigurationError("no such name"), DependencyUnavailable),
        (pymongo.errors.InvalidURI("none"), DependencyUnavailable),
        (pymongo.errors.OperationFailure("full", 14031, _reply(14031)), CapacityExceeded),
        (pymongo.errors.CursorNotFound("gone", 43, _reply(43)), DependencyUnavailable),
        (pymongo.errors.ExecutionTimeout("slow", 50, _reply(50)), DependencyUnavailable),
        (pymongo.errors.WriteConcernError("alone", 100, _reply(100)), DependencyUnavailable),
        (pymongo.errors.WTimeoutError("slow", 64, _reply(64)), DependencyUnavailable),
        (pymongo.errors.WriteError("large", 10334, _reply(10334)), CapacityExceeded),
        (pymongo.errors.DuplicateKeyError("twice", 11000, _reply(11000)), None),
        (
            pymongo.errors.BulkWriteError({"writeErrors": [], "writeConcernErrors": [UNCONFIRMED]}),
            DependencyUnavailable,
        ),
        (pymongo.errors.ClientBulkWriteException({}, verbose=False), None),  # we use none
        (pymongo.errors.InvalidOperation("Cannot use AsyncMongoClient after close"), DependencyUnavailable),
        (pymongo.errors.InvalidName("a..b"), None),
        (pymongo.errors.CollectionInvalid("twice"), None),
        (pymongo.errors.DocumentTooLarge("large"), CapacityExceeded),
        (pymongo.errors.EncryptionError(ValueError()), None),  # we use none
        (pymongo.errors.EncryptedCollectionError(ValueError(), {}), None),
        (InvalidStringData("no UTF-8"), InvalidRequest),
        (OverflowError("9 bytes"), InvalidRequest),
        (UnicodeError("half a surrogate"), InvalidRequest),
    ]
}


@pytest.mark.parametrize(("error", "meaning"), MEANINGS.values(), ids=[kind.__name__ for kind in MEANINGS])
def test_error_of_the_driver_is_mapped_to_ours(error: Exception, meaning: type[FleetestError] | None) -> None:
    mapped = explained(error, "mongodb://host/fleetest")

    if meaning is None:
        assert mapped is error
    else:
        assert type(mapped) is meaning
        assert mapped.__cause__ is error or "closed" in str(mapped)


def test_no_error_of_the_driver_was_forgotten() -> None:
    known = {
        kind
        for _, kind in inspect.getmembers(pymongo.errors, inspect.isclass)
        if issubclass(kind, pymongo.errors.PyMongoError)
    }

    assert not known - MEANINGS.keys()
