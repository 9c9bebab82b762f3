"""Object stores that are named wrongly, gone, silent, full or closed to us. Whole ones: tests/contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fleetest.common.digest import digest_of
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, InvalidRequest
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.settings import Secret
from fleetest.master.blobs.object_blob_store import ObjectBlobStore
from fleetest.master.blobs.obstore_objects import ObstoreObjects, Patience
from fleetest.master.blobs.url import BlobsUrl, parse_blobs_url
from tests.support.ports import free_port

CONTENT = b"some content"
DIGEST = digest_of(CONTENT)
LARGE = bytes(9 * CHUNK_BYTES)
HASTY = Patience(connect=timedelta(seconds=1), silence=timedelta(seconds=0.2), request=timedelta(seconds=1), retries=1)

Answer = Callable[[BaseHTTPRequestHandler], None]


def parse(url: str) -> BlobsUrl:
    return parse_blobs_url(Secret(url))


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """A store that answers every request in the same way."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def answering(status: int, code: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        body = f"<Error><Code>{code}</Code></Error>".encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def open_store(port: int, tmp_path: Path) -> ObjectBlobStore:
    url = f"s3://bucket/prefix?endpoint=http://127.0.0.1:{port}&region=eu-west-1&access_key_id=ID&secret_access_key=HIDDEN"
    return ObjectBlobStore(ObstoreObjects(parse(url), patience=HASTY), tmp_path)


async def upload(store: ObjectBlobStore, content: bytes, offset_bytes: int = 0) -> None:
    async with store.upload(digest_of(content), offset_bytes=offset_bytes) as writing:
        for first in range(offset_bytes, len(content), CHUNK_BYTES):
            await writing.write(content[first : first + CHUNK_BYTES])
        await writing.commit()


def test_url_says_which_store_and_where_in_it() -> None:
    s3, azure, file = (
        parse("s3://bucket/a/b?region=eu-west-1&secret_access_key=HIDDEN"),
        parse("az://account/container/a"),
        parse("file:///var/lib/blobs"),
    )

    assert (s3.scheme, s3.container, s3.prefix, s3.options["region"]) == ("s3", "bucket", "a/b", "eu-west-1")
    assert (azure.account, azure.container, azure.prefix) == ("account", "container", "a")
    assert file.directory == Path("/var/lib/blobs")
    assert s3.shown == "s3://bucket/a/b"
    assert "HIDDEN" not in repr(s3)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://bucket/", "another scheme"),
        ("s3:///prefix", "no bucket"),
        ("az://account", "no bucket or container"),
        ("file://host/directory", "no directory"),
        ("s3://HIDDEN:HIDDEN@bucket", "user or password"),
        ("s3://bucket?secret=HIDDEN", "an option that s3:// does not: secret"),
        ("file:///directory?region=HIDDEN", "an option that file:// does not: region"),
    ],
)
def test_url_that_names_no_store_is_refused_without_being_shown(url: str, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem) as refused:
        parse(url)

    assert "HIDDEN" not in str(refused.value)


def test_option_of_the_wrong_kind_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="gs://bucket cannot be set up"):
        ObstoreObjects(parse("gs://bucket?service_account_key=HIDDEN"))


async def test_store_that_is_gone_is_unavailable_and_keeps_no_half_blob(tmp_path: Path) -> None:
    store = open_store(free_port(), tmp_path)

    for call in (store.check(), store.missing([DIGEST]), store.put({DIGEST: CONTENT})):
        with pytest.raises(DependencyUnavailable, match="s3://bucket/prefix does not answer"):
            await call


async def test_upload_that_the_store_did_not_take_goes_on_where_it_was(tmp_path: Path) -> None:
    with serving(answering(503, "SlowDown")) as port:
        store = open_store(port, tmp_path)

        with pytest.raises(DependencyUnavailable, match="503"):
            await upload(store, LARGE)

        assert await store.resumable_bytes(digest_of(LARGE)) == len(LARGE)


async def test_store_that_says_nothing_is_unavailable(tmp_path: Path) -> None:
    released = threading.Event()

    def say_nothing(_: BaseHTTPRequestHandler) -> None:
        released.wait(30)

    with serving(say_nothing) as port:
        with pytest.raises(DependencyUnavailable, match="does not answer as it should"):
            await open_store(port, tmp_path).missing([DIGEST])
        released.set()


async def test_store_that_is_full_is_told_from_one_that_fails(tmp_path: Path) -> None:
    with serving(answering(507, "InsufficientStorage")) as port:
        store = open_store(port, tmp_path)

        with pytest.raises(CapacityExceeded, match="is full"):
            await store.put({DIGEST: CONTENT})
        with pytest.raises(CapacityExceeded, match="is full"):
            await upload(store, LARGE)


async def test_store_that_only_lets_itself_be_read_says_that_it_refuses(tmp_path: Path) -> None:
    with serving(answering(403, "AccessDenied")) as port, pytest.raises(DependencyUnavailable) as refused:
        await open_store(port, tmp_path).put({DIGEST: CONTENT})

    assert "s3://bucket/prefix refuses what the master's credentials ask" in str(refused.value)
    assert "HIDDEN" not in str(refused.value)
    assert refused.value.__cause__ is None
