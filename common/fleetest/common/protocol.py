"""
How two versions of Fleetest find out whether they understand each other.

Every call carries `fleetest-protocol`, a whole number. A peer may leave it out (`grpcurl`, health probes). Fields and
methods are only ever added within one protocol; the number grows when a meaning changes.
"""

from __future__ import annotations

from typing import Final

from fleetest.common.errors import InvalidRequest, WrongState

__all__ = ["OLDEST_PROTOCOL", "PROTOCOL", "PROTOCOL_HEADER", "REQUEST_ID_HEADER", "check_protocol"]

PROTOCOL: Final = 1
"""The newest protocol that this version speaks."""

OLDEST_PROTOCOL: Final = 1
"""The oldest that it still speaks."""

PROTOCOL_HEADER: Final = "fleetest-protocol"
REQUEST_ID_HEADER: Final = "x-request-id"


def check_protocol(header: str | None) -> None:
    """
    Accept a peer's protocol, or say which side to upgrade.

    Raises:
        InvalidRequest: the header is not a number.
        WrongState: the peer is newer or older than this side understands.
    """
    if header is None:
        return
    try:
        peer = int(header)
    except ValueError:
        raise InvalidRequest(f"{PROTOCOL_HEADER} must be a whole number, not {header!r}") from None
    if peer > PROTOCOL:
        raise WrongState(
            f"the caller speaks protocol {peer}, this master only up to {PROTOCOL}",
            hint="upgrade the master, or install the version of fleetest that the master runs "
            "(`fleetest version` shows both)",
        )
    if peer < OLDEST_PROTOCOL:
        raise WrongState(
            f"the caller speaks protocol {peer}, this master no longer speaks any before {OLDEST_PROTOCOL}",
            hint="upgrade the caller: pip install --upgrade fleetest",
        )
