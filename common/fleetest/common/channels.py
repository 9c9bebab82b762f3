"""gRPC channels to masters, plain or over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from fleetest.common.tls import ClientTls

__all__ = ["open_channel"]


def open_channel(
    address: str,
    tls: ClientTls | None,
    *,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
) -> grpc.aio.Channel:
    """
    A channel; nothing is sent before the first call. A Unix socket is never encrypted: its directory guards it.

    Raises:
        InvalidRequest: a file that TLS needs cannot be used.
    """
    if tls is None or address.startswith("unix:"):
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    if tls.server_name:
        options = (*options, ("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(
        address, grpc.ssl_channel_credentials(*tls.pem()), options=options, interceptors=interceptors
    )
