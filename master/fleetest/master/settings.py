"""The master's settings, and how they may not be combined."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import (
    Secret,
    days,
    header_secret,
    pairs,
    path,
    seconds,
    secret,
    setting,
    switch,
    text,
    whole_number,
)
from fleetest.master.blobs.url import BlobsUrl, parse_blobs_url
from fleetest.master.cache.layers import CacheStrategy, Eviction
from fleetest.master.server_tls import ServerTls

__all__ = ["MasterSettings"]

_SIZE: Final = whole_number()
_NO_POOLS: Final[Mapping[str, int]] = MappingProxyType({})
_POOL_SIZE: Final = whole_number(at_least=1)


def _eviction(raw: str) -> Eviction:
    try:
        return Eviction(raw)
    except ValueError:
        raise ValueError(f"{raw!r} is not one of {', '.join(Eviction)}") from None


def _pools(raw: str) -> Mapping[str, int]:
    return {name: _POOL_SIZE(size) for name, size in pairs(raw).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings:
    """
    Args:
        address: for clients and workers, `host:port`; loopback unless told otherwise.
        worker_address: for the sessions of workers; empty serves them where all else is.
        data_directory: SQLite and, unless told otherwise, blobs; not needed where both are elsewhere.
        blobs_directory: of uploaded files and artifacts; several masters share it. Absent means in `data_directory`.
        blobs_url: where these are instead: an object store, whose uploads are collected in `data_directory`.
        mongodb_url: the store that several masters share; without it, it is a SQLite file in the data directory.
        redis_url: `redis://` or `unix://`.
        client_token: what clients must show; required off loopback.
        join_token: what workers must show; required off loopback.
        tls_certificate, tls_key: PEM files; off loopback required unless `insecure`.
        tls_client_ca: workers' sessions must show a certificate that these authorities signed.
        insecure: serve the network without TLS: whoever can listen there learns the tokens.
        token_memory: how long a revoked token may still admit somebody at another master.
        event_retention: how long the log of a run is kept; what was derived from it stays.
        artifact_retention: how long artifacts are kept, unless their suite says it.
        idle_exit: end when nobody used the master for so long; zero means never.
        default_image: of tasks that name none; empty leaves these to the process executor.
        cache_memory_bytes, cache_redis_bytes, cache_file_bytes: what each layer of the result cache may hold; zero
            switches it off. The other settings of a layer say for how long, and what makes room.
        cache_file_directory: of the layer of files; absent means in `data_directory`, and without that there is none.
        pools: how many there are of what tasks of any project use as `cluster/NAME`.
        lease_ttl: a worker that says nothing for so long has lost its work.
    """

    address: str = setting("FLEETEST_LISTEN_ADDRESS", text, default="127.0.0.1:50051")
    worker_address: str = setting("FLEETEST_WORKER_LISTEN_ADDRESS", text, default="")
    data_directory: Path | None = setting("FLEETEST_DATA_DIR", path, default=None)
    mongodb_url: Secret = setting("FLEETEST_MONGODB_URL", secret, default=Secret())
    blobs_directory: Path | None = setting("FLEETEST_BLOBS_DIR", path, default=None)
    blobs_url: Secret = setting("FLEETEST_BLOBS_URL", secret, default=Secret())
    redis_url: str = setting("FLEETEST_REDIS_URL", text)
    client_token: Secret = setting("FLEETEST_TOKEN", header_secret, default=Secret())
    join_token: Secret = setting("FLEETEST_JOIN_TOKEN", header_secret, default=Secret())
    tls_certificate: Path | None = setting("FLEETEST_TLS_CERT", path, default=None)
    tls_key: Path | None = setting("FLEETEST_TLS_KEY", path, default=None)
    tls_client_ca: Path | None = setting("FLEETEST_TLS_CLIENT_CA", path, default=None)
    insecure: bool = setting("FLEETEST_INSECURE", switch, default=False)
    token_memory: timedelta = setting("FLEETEST_TOKEN_MEMORY_SECONDS", seconds, default=timedelta(seconds=5))
    lease_ttl: timedelta = setting("FLEETEST_LEASE_TTL_SECONDS", seconds, default=timedelta(seconds=15))
    claim_ttl: timedelta = setting("FLEETEST_CLAIM_TTL_SECONDS", seconds, default=timedelta(seconds=10))
    reserve_after: timedelta = setting("FLEETEST_RESERVE_AFTER_SECONDS", seconds, default=timedelta(seconds=30))
    reconcile_interval: timedelta = setting(
        "FLEETEST_RECONCILE_INTERVAL_SECONDS", seconds, default=timedelta(seconds=2)
    )
    idle_exit: timedelta = setting("FLEETEST_IDLE_EXIT_SECONDS", seconds, default=timedelta())
    event_retention: timedelta = setting("FLEETEST_EVENT_RETENTION_DAYS", days, default=timedelta(days=30))
    artifact_retention: timedelta = setting("FLEETEST_ARTIFACT_RETENTION_DAYS", days, default=timedelta(days=90))
    default_image: str = setting("FLEETEST_DEFAULT_IMAGE", text, default="")
    cache_memory_bytes: int = setting("FLEETEST_CACHE_MEMORY_BYTES", _SIZE, default=100 << 20)
    cache_memory_ttl: timedelta = setting("FLEETEST_CACHE_MEMORY_TTL_SECONDS", seconds, default=timedelta(minutes=1))
    cache_memory_eviction: Eviction = setting("FLEETEST_CACHE_MEMORY_EVICTION", _eviction, default=Eviction.LRU)
    cache_redis_bytes: int = setting("FLEETEST_CACHE_REDIS_BYTES", _SIZE, default=64 << 20)
    cache_redis_ttl: timedelta = setting("FLEETEST_CACHE_REDIS_TTL_SECONDS", seconds, default=timedelta(hours=1))
    cache_redis_eviction: Eviction = setting("FLEETEST_CACHE_REDIS_EVICTION", _eviction, default=Eviction.LRU)
    cache_file_bytes: int = setting("FLEETEST_CACHE_FILE_BYTES", _SIZE, default=1 << 30)
    cache_file_ttl: timedelta = setting("FLEETEST_CACHE_FILE_TTL_SECONDS", seconds, default=timedelta(days=30))
    cache_file_eviction: Eviction = setting("FLEETEST_CACHE_FILE_EVICTION", _eviction, default=Eviction.LRU)
    cache_file_directory: Path | None = setting("FLEETEST_CACHE_FILE_DIR", path, default=None)
    pools: Mapping[str, int] = setting("FLEETEST_POOLS", _pools, default=_NO_POOLS)
    log_level: str = setting("FLEETEST_LOG_LEVEL", text, default="info")

    @property
    def cache_memory(self) -> CacheStrategy:
        return CacheStrategy(
            ttl=self.cache_memory_ttl, max_bytes=self.cache_memory_bytes, eviction=self.cache_memory_eviction
        )

    @property
    def cache_redis(self) -> CacheStrategy:
        return CacheStrategy(
            ttl=self.cache_redis_ttl, max_bytes=self.cache_redis_bytes, eviction=self.cache_redis_eviction
        )

    @property
    def cache_file(self) -> CacheStrategy:
        return CacheStrategy(
            ttl=self.cache_file_ttl, max_bytes=self.cache_file_bytes, eviction=self.cache_file_eviction
        )

    @property
    def blobs(self) -> BlobsUrl | None:
        """Raises InvalidRequest: it names no store."""
        return parse_blobs_url(self.blobs_url) if self.blobs_url else None

    @property
    def tls(self) -> ServerTls | None:
        """Of the main port, which asks nobody for a certificate."""
        if self.tls_certificate is None or self.tls_key is None or self.address.startswith("unix:"):
            return None
        return ServerTls(certificate=self.tls_certificate, key=self.tls_key)

    @property
    def worker_tls(self) -> ServerTls | None:
        """Of the workers' own port."""
        if self.tls_certificate is None or self.tls_key is None:
            return None
        return ServerTls(certificate=self.tls_certificate, key=self.tls_key, client_ca=self.tls_client_ca)

    def check(self) -> None:
        """
        Raises:
            InvalidRequest: nothing says where to keep things; an address has no port; it would serve the network
                without asking who calls, or for all to read; it would admit clients and no workers, or the other way
                round; or TLS is set up by half.
        """
        self._check_blobs()
        files_elsewhere = self.blobs_directory or (self.blobs is not None and self.blobs.directory)
        if self.data_directory is None and not (self.mongodb_url and files_elsewhere):
            raise InvalidRequest(
                "FLEETEST_DATA_DIR: is required",
                hint="unless FLEETEST_MONGODB_URL and FLEETEST_BLOBS_DIR say where runs and files are kept instead",
            )
        if not self.address.startswith("unix:"):
            _check_port(self.address, "FLEETEST_LISTEN_ADDRESS")
        if self.worker_address:
            _check_port(self.worker_address, "FLEETEST_WORKER_LISTEN_ADDRESS")
        exposed = [each for each in (self.address, self.worker_address) if each and not _is_loopback(_host(each))]
        if exposed and not (self.client_token and self.join_token):
            raise InvalidRequest(
                f"refusing to listen on {exposed[0]} without tokens: anybody could run programs here",
                hint="set FLEETEST_TOKEN (for clients) and FLEETEST_JOIN_TOKEN (for workers), or listen on 127.0.0.1",
            )
        if bool(self.client_token) != bool(self.join_token):
            raise InvalidRequest(
                "one of two tokens is set: nobody without a token would get in, and one side could have none",
                hint="set both FLEETEST_TOKEN (for clients) and FLEETEST_JOIN_TOKEN (for workers), or neither",
            )
        self._check_tls()
        if exposed and self.tls_certificate is None and not self.insecure:
            raise InvalidRequest(
                f"refusing to listen on {exposed[0]} without TLS: tokens and secrets could be read on the network",
                hint="set FLEETEST_TLS_CERT and FLEETEST_TLS_KEY; or FLEETEST_INSECURE=1 where the network can be "
                "trusted, or encrypts by itself",
            )

    def _check_blobs(self) -> None:
        if self.blobs is not None and self.blobs_directory is not None:
            raise InvalidRequest(
                "FLEETEST_BLOBS_URL and FLEETEST_BLOBS_DIR name two places for the same files", hint="set one of them"
            )
        if self.blobs is not None and self.blobs.directory is None and self.data_directory is None:
            raise InvalidRequest(
                "FLEETEST_DATA_DIR: is required with an object store",
                hint="large uploads are collected there on their way to FLEETEST_BLOBS_URL",
            )

    def _check_tls(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise InvalidRequest(
                "a certificate and its key come together", hint="set both FLEETEST_TLS_CERT and FLEETEST_TLS_KEY"
            )
        if self.tls_client_ca is None:
            return
        if self.tls_certificate is None:
            raise InvalidRequest(
                "FLEETEST_TLS_CLIENT_CA asks workers for certificates, which needs one of the master's own",
                hint="set FLEETEST_TLS_CERT and FLEETEST_TLS_KEY",
            )
        if not self.worker_address:
            raise InvalidRequest(
                "FLEETEST_TLS_CLIENT_CA asks for certificates on the workers' own port, and there is none",
                hint="set FLEETEST_WORKER_LISTEN_ADDRESS, such as 0.0.0.0:50052",
            )


def _check_port(address: str, variable: str) -> None:
    if address.startswith("unix:") or not address.rpartition(":")[2].isdecimal():
        raise InvalidRequest(f"{address!r} has no port", hint=f"{variable} reads host:port, such as 127.0.0.1:50051")


def _host(address: str) -> str:
    return "unix" if address.startswith("unix:") else address.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    if host in {"localhost", "unix"}:  # a socket is guarded by its directory
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
