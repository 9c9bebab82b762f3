"""The master's settings, and how they may not be combined."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import Secret, days, path, seconds, secret, setting, text

__all__ = ["MasterSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterSettings:
    """
    Args:
        address: for clients and workers, `host:port`; loopback unless told otherwise.
        data_directory: SQLite and, unless told otherwise, blobs; not needed where both are elsewhere.
        blobs_directory: of uploaded files and artifacts; several masters share it. Absent means in `data_directory`.
        mongodb_url: the store that several masters share; without it, it is a SQLite file in the data directory.
        redis_url: `redis://` or `unix://`.
        client_token: what clients must show; required off loopback.
        join_token: what workers must show; required off loopback.
        token_memory: how long a revoked token may still admit somebody at another master.
        event_retention: how long the log of a run is kept; what was derived from it stays.
        idle_exit: end when nobody used the master for so long; zero means never.
        default_image: of tasks that name none; empty leaves these to the process executor.
        lease_ttl: a worker that says nothing for so long has lost its work.
    """

    address: str = setting("FLEETEST_LISTEN_ADDRESS", text, default="127.0.0.1:50051")
    data_directory: Path | None = setting("FLEETEST_DATA_DIR", path, default=None)
    mongodb_url: Secret = setting("FLEETEST_MONGODB_URL", secret, default=Secret())
    blobs_directory: Path | None = setting("FLEETEST_BLOBS_DIR", path, default=None)
    redis_url: str = setting("FLEETEST_REDIS_URL", text)
    client_token: Secret = setting("FLEETEST_TOKEN", secret, default=Secret())
    join_token: Secret = setting("FLEETEST_JOIN_TOKEN", secret, default=Secret())
    token_memory: timedelta = setting("FLEETEST_TOKEN_MEMORY_SECONDS", seconds, default=timedelta(seconds=5))
    lease_ttl: timedelta = setting("FLEETEST_LEASE_TTL_SECONDS", seconds, default=timedelta(seconds=15))
    claim_ttl: timedelta = setting("FLEETEST_CLAIM_TTL_SECONDS", seconds, default=timedelta(seconds=10))
    reserve_after: timedelta = setting("FLEETEST_RESERVE_AFTER_SECONDS", seconds, default=timedelta(seconds=30))
    reconcile_interval: timedelta = setting(
        "FLEETEST_RECONCILE_INTERVAL_SECONDS", seconds, default=timedelta(seconds=2)
    )
    idle_exit: timedelta = setting("FLEETEST_IDLE_EXIT_SECONDS", seconds, default=timedelta())
    event_retention: timedelta = setting("FLEETEST_EVENT_RETENTION_DAYS", days, default=timedelta(days=30))
    default_image: str = setting("FLEETEST_DEFAULT_IMAGE", text, default="")
    log_level: str = setting("FLEETEST_LOG_LEVEL", text, default="info")

    def check(self) -> None:
        """
        Raises:
            InvalidRequest: nothing says where to keep things; the address has no port; it would serve the network
                without asking who calls; or it would admit clients and no workers, or the other way round.
        """
        if self.data_directory is None and not (self.mongodb_url and self.blobs_directory):
            raise InvalidRequest(
                "FLEETEST_DATA_DIR: is required",
                hint="unless FLEETEST_MONGODB_URL and FLEETEST_BLOBS_DIR say where runs and files are kept instead",
            )
        if not self.address.startswith("unix:") and not self.address.rpartition(":")[2].isdecimal():
            raise InvalidRequest(
                f"{self.address!r} has no port", hint="FLEETEST_LISTEN_ADDRESS reads host:port, such as 127.0.0.1:50051"
            )
        host = self.address.partition(":")[0] if self.address.startswith("unix:") else _host(self.address)
        if not _is_loopback(host) and not (self.client_token and self.join_token):
            raise InvalidRequest(
                f"refusing to listen on {self.address} without tokens: anybody could run programs here",
                hint="set FLEETEST_TOKEN (for clients) and FLEETEST_JOIN_TOKEN (for workers), or listen on 127.0.0.1",
            )
        if bool(self.client_token) != bool(self.join_token):
            raise InvalidRequest(
                "one of two tokens is set: nobody without a token would get in, and one side could have none",
                hint="set both FLEETEST_TOKEN (for clients) and FLEETEST_JOIN_TOKEN (for workers), or neither",
            )


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    if host in {"localhost", "unix"}:  # a socket is guarded by its directory
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
