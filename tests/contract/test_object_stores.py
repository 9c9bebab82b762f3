"""What holds for object stores beyond `test_blob_store.py`: URLs to read by, uploads in parts, refusals."""

from __future__ import annotations

import asyncio
import json
import random
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fleetest.common.clock import ManualClock
from fleetest.common.digest import digest_of
from fleetest.common.errors import DependencyUnavailable, WrongState
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.results import Artifact
from fleetest.common.settings import Secret
from fleetest.master.blobs.custody import Custody
from fleetest.master.blobs.object_blob_store import ObjectBlobStore
from fleetest.master.blobs.obstore_objects import ObstoreObjects, Patience
from fleetest.master.blobs.shelf import ArtifactShelf
from fleetest.master.blobs.sweep import BlobSweep
from fleetest.master.blobs.url import parse_blobs_url
from fleetest.master.runs.summary import summary_of
from fleetest.master.store.sqlite import SqliteStore
from tests.support.object_stores import EMULATORS, MakeUrl
from tests.tools.story import START, Story, command_task

CONTENT = b"print('hello')\n"
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=[*EMULATORS])
def url(request: pytest.FixtureRequest) -> Secret:
    make_url: MakeUrl = request.getfixturevalue(f"{request.param}_emulator")
    return make_url()


def open_store(url: Secret, tmp_path: Path) -> ObjectBlobStore:
    patience = Patience(retries=0, in_all=timedelta(seconds=2))
    return ObjectBlobStore(ObstoreObjects(parse_blobs_url(url), patience=patience), tmp_path / "uploads")


def download(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        return bytes(response.read())


async def test_several_parts_become_one_blob_and_leave_nothing_on_the_way(url: Secret, tmp_path: Path) -> None:
    store = open_store(url, tmp_path)
    content = random.Random(2).randbytes(17 * CHUNK_BYTES)  # three parts
    async with store.upload(digest_of(content)) as writing:
        for first in range(0, len(content), CHUNK_BYTES):
            await writing.write(content[first : first + CHUNK_BYTES])
        await writing.commit()

    chunks = [chunk async for chunk in store.read(digest_of(content))]

    assert b"".join(chunks) == content
    assert [path for path in (tmp_path / "uploads").rglob("*") if path.is_file()] == []


async def test_store_that_answers_passes_the_check(url: Secret, tmp_path: Path) -> None:
    await open_store(url, tmp_path).check()


@pytest.mark.parametrize("name", ["s3", "azure"])
async def test_signed_url_reads_the_blob_without_credentials(
    request: pytest.FixtureRequest, name: str, tmp_path: Path
) -> None:
    store = open_store(request.getfixturevalue(f"{name}_emulator")(), tmp_path)
    await store.put({digest_of(CONTENT): CONTENT})

    signed = await store.sign(digest_of(CONTENT), MINUTE)

    assert await asyncio.to_thread(download, signed) == CONTENT


async def test_service_account_signs_urls_of_google(gcs_emulator: MakeUrl, tmp_path: Path) -> None:
    place, _, _ = gcs_emulator().reveal().partition("&bearer_token")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "client_email": "master@example.com",
        "private_key_id": "1",
        "private_key": key.decode(),
        "gcs_base_url": "http://ignored.example.com",
    }
    store = open_store(Secret(f"{place}&service_account_key={quote(json.dumps(account))}"), tmp_path)
    await store.put({digest_of(CONTENT): CONTENT})

    signed = await store.sign(digest_of(CONTENT), MINUTE)

    assert "X-Goog-Signature=" in signed
    assert await asyncio.to_thread(download, signed) == CONTENT


async def test_credentials_that_cannot_sign_are_named_as_the_reason(gcs_emulator: MakeUrl, tmp_path: Path) -> None:
    with pytest.raises(WrongState, match="gives no URLs"):
        await open_store(gcs_emulator(), tmp_path).sign(digest_of(CONTENT), MINUTE)


async def test_altered_signature_is_refused(azure_emulator: MakeUrl, tmp_path: Path) -> None:
    store = open_store(azure_emulator(), tmp_path)
    await store.put({digest_of(CONTENT): CONTENT, digest_of(b"other"): b"other"})
    signed = await store.sign(digest_of(CONTENT), MINUTE)

    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        await asyncio.to_thread(download, signed.replace(digest_of(CONTENT), digest_of(b"other")))

    refused.value.close()


async def test_wrong_key_is_refused_and_not_shown(azure_emulator: MakeUrl, tmp_path: Path) -> None:
    place, _, _ = azure_emulator().reveal().partition("&account_key=")
    store = open_store(Secret(f"{place}&account_key={quote('d3Jvbmcga2V5')}"), tmp_path)

    with pytest.raises(DependencyUnavailable, match="refuses") as refused:
        await store.put({digest_of(CONTENT): CONTENT})

    assert "d3Jvbmcga2V5" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_bucket_that_does_not_exist_is_told_from_a_blob_that_does_not(
    s3_emulator: MakeUrl, tmp_path: Path
) -> None:
    store = open_store(Secret(s3_emulator().reveal().replace("s3://fleetest/", "s3://elsewhere/")), tmp_path)

    with pytest.raises(DependencyUnavailable, match=r"s3://elsewhere/.* does not exist"):
        await store.check()
    with pytest.raises(DependencyUnavailable, match="does not exist"):
        await store.put({digest_of(CONTENT): CONTENT})


async def test_artifact_is_read_by_its_url_until_it_is_deleted(s3_emulator: MakeUrl, tmp_path: Path) -> None:
    blobs, clock = open_store(s3_emulator(), tmp_path), ManualClock(START)
    story = Story(command_task(artifacts=("out",)))
    token = story.start("lint#0")
    left = Artifact(path="out/a.txt", digest=digest_of(CONTENT), size_bytes=len(CONTENT))
    story.ask(lambda decider: decider.artifacts_saved("lint#0", token, [left], []))
    async with await SqliteStore.open(tmp_path / "fleetest.sqlite") as store:
        custody = Custody(store, clock, workspaces_for=MINUTE, artifacts_for=MINUTE)
        sweep = BlobSweep(blobs, store, clock)
        shelf = ArtifactShelf(custody, blobs, sweep.look_soon)
        run = summary_of(story.status)
        await custody.keep_artifacts(run.run_id, "p", "lint#0", [left], MINUTE)
        await blobs.put({left.digest: CONTENT})

        [listed] = await shelf.list(run, url_ttl=MINUTE)
        read = await asyncio.to_thread(download, listed.url)
        deleted = await shelf.delete(run.run_id, [("lint#0", "out/a.txt")])
        await sweep.look()

        assert (read, deleted) == (CONTENT, 1)
        assert await shelf.list(run, url_ttl=MINUTE) == []
        with pytest.raises(urllib.error.HTTPError, match="404") as gone:
            await asyncio.to_thread(download, listed.url)
        gone.value.close()
