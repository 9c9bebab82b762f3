"""S3, Google Cloud Storage and Azure Blob Storage through obstore. Its only importer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, S3Store

from fleetest.common.backoff import Backoff
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, InvalidRequest, NotFound, WrongState
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.master.blobs.url import BlobsUrl

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig

__all__ = ["ObstoreObjects", "Patience"]

_PART_BYTES: Final = 8 << 20
_PARTS_AT_ONCE: Final = 4
_DELETED_AT_ONCE: Final = 256  # Azure's bound for one request; S3's is 1000
_READ_TRIES: Final = 4
_BACKOFF: Final = Backoff(first=timedelta(milliseconds=200), longest=timedelta(seconds=5))

_FULL: Final = re.compile(r"\b507\b|QuotaExceeded|InsufficientStorage|StorageFull|insufficientQuota")
_NO_CONTAINER: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_QUERY: Final = re.compile(r"\?[^\s\"'<>)]+")  # of a URL: where signatures are
_LONGEST_REASON: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """
    How long the store is waited for.

    Args:
        silence: without a byte of an answer.
        request: one request; a download that takes longer goes on with another.
        retries: after server errors and broken connections; after a time-out, too, where nothing is changed.
        in_all: after which no further try begins.
    """

    connect: timedelta = timedelta(seconds=5)
    silence: timedelta = timedelta(seconds=60)
    request: timedelta = timedelta(minutes=5)
    retries: int = 5
    in_all: timedelta = timedelta(seconds=30)

    @property
    def client(self) -> ClientConfig:
        return {
            "connect_timeout": self.connect,
            "read_timeout": self.silence,
            "timeout": self.request,
            "user_agent": "fleetest",
        }

    @property
    def retry(self) -> RetryConfig:
        backoff: BackoffConfig = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5)}
        return {"max_retries": self.retries, "retry_timeout": self.in_all, "backoff": backoff}


class ObstoreObjects:
    """
    Fulfils `Objects`. Credentials come from the URL's options, the store's own environment variables, or the machine's
    identity in its cloud, as obstore finds them.

    Raises:
        InvalidRequest: the URL and the environment do not say how to reach the store.
    """

    def __init__(self, url: BlobsUrl, *, patience: Patience = Patience()) -> None:
        self._name = f"the blob store {url.shown}"
        try:
            self._store = _make(url, patience)
        except (BaseError, ValueError, TypeError, OSError) as error:
            raise InvalidRequest(f"{self._name} cannot be set up: {_reason(error)}") from None

    async def check(self) -> None:
        with self._failures():
            async for _ in obstore.list(self._store, chunk_size=1):
                break

    async def exists(self, key: str) -> bool:
        with self._failures():
            try:
                await obstore.head_async(self._store, key)
            except FileNotFoundError:
                return False
        return True

    async def put(self, key: str, content: bytes) -> None:
        with self._failures():
            await obstore.put_async(self._store, key, content, use_multipart=False)

    async def put_file(self, key: str, path: Path) -> None:
        with self._failures():
            await obstore.put_async(self._store, key, path, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        read_bytes = failures = 0
        while True:
            try:
                with self._failures():
                    options: Any = {"range": {"offset": read_bytes}} if read_bytes else None
                    result = await obstore.get_async(self._store, key, options=options)
                    end = result.meta["size"]
                    if read_bytes < end:
                        async for piece in result.stream(min_chunk_size=CHUNK_BYTES):
                            read_bytes += len(piece)
                            failures = 0
                            yield bytes(piece)
            except DependencyUnavailable:
                failures += 1
                if not read_bytes or failures >= _READ_TRIES:
                    raise
                await asyncio.sleep(_BACKOFF.delay(failures).total_seconds())
            else:
                return

    async def delete(self, keys: Sequence[str]) -> None:
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            batch = list(keys[first : first + _DELETED_AT_ONCE])
            with self._failures():
                try:
                    await obstore.delete_async(self._store, batch)
                except FileNotFoundError:  # one was gone; whether the others are differs from store to store
                    for key in batch:
                        await self._delete_one(key)

    async def _delete_one(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, [key])
        except FileNotFoundError as error:
            if _NO_CONTAINER.search(str(error)):
                raise

    async def sign(self, key: str, expires_in: timedelta) -> str:
        try:
            return await obstore.sign_async(self._store, "GET", key, expires_in)
        except (BaseError, OSError) as error:
            raise WrongState(
                f"{self._name} gives no URLs to the master: {_reason(error)}",
                hint="it needs credentials that can sign: an access key, an account key or a service account",
            ) from None

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """
        Gives what obstore raises its place in the tree of errors.

        The cause is left out: it shows requests with all that is in them.
        """
        try:
            yield
        except FileNotFoundError as error:
            if _NO_CONTAINER.search(str(error)):
                raise DependencyUnavailable(
                    f"{self._name} does not exist", hint="Make the bucket or container; Fleetest makes none."
                ) from None
            raise NotFound(f"no such blob in {self._name}") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise DependencyUnavailable(
                f"{self._name} refuses what the master's credentials ask: {_reason(error)}",
                hint="They must be valid, and allow to list, read, write and delete there.",
            ) from None
        except (BaseError, OSError) as error:
            if _FULL.search(str(error)):
                raise CapacityExceeded(
                    f"{self._name} is full: {_reason(error)}", hint="Let old runs expire sooner, or give it more room."
                ) from None
            raise DependencyUnavailable(f"{self._name} does not answer as it should: {_reason(error)}") from None


def _make(url: BlobsUrl, patience: Patience) -> S3Store | GCSStore | AzureStore:
    options: Any = dict(url.options)  # checked by obstore
    client = patience.client
    if url.endpoint.startswith("http://"):
        client["allow_http"] = True
    common: dict[str, Any] = {"prefix": url.prefix or None, "client_options": client, "retry_config": patience.retry}
    match url.scheme:
        case "s3":
            return S3Store(url.container, config=options, **common)
        case "gs":
            return GCSStore(url.container, config=options, **common)
        case _:
            return AzureStore(url.container, config=options | {"account_name": url.account}, **common)


def _reason(error: Exception) -> str:
    """What obstore says, without its debugging view, and without any URL's query."""
    said = " ".join(str(error).partition("\n\nDebug source")[0].split())
    return _QUERY.sub("?...", said)[:_LONGEST_REASON]
