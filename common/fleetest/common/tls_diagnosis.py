"""
Why two sides cannot talk, when TLS is the reason.

gRPC says of most of it "Socket closed", and its words change from version to version. So the handshake is made once
more by Python's own TLS, which knows.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import timedelta
from typing import Final

from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.tls import ClientTls

__all__ = ["diagnose"]

_PATIENCE: Final = timedelta(seconds=3)

# Of X.509 verification, as OpenSSL numbers it.
_NOT_YET_VALID: Final = 9
_EXPIRED: Final = 10
_WRONG_NAME: Final = frozenset({62, 64})


async def diagnose(address: str, tls: ClientTls | None) -> DependencyUnavailable | None:
    """What is wrong with TLS between here and the master at `host:port`; `None` when it is something else, or well."""
    if address.startswith("unix:"):
        return None
    return await asyncio.to_thread(_diagnose, address, tls)


def _diagnose(address: str, tls: ClientTls | None) -> DependencyUnavailable | None:
    try:
        if tls is None:
            with _connect(address) as connection:
                return _called_without(address) if _speaks_tls(connection) else None
        # gRPC hangs up on whom it does not trust, as does a master that just dies: but that one not twice.
        if all(_hangs_up(address, tls) for _ in range(2)):
            return _wants_a_certificate(address, tls)
    except ssl.SSLCertVerificationError as error:
        return _not_trusted(address, error)
    except ssl.SSLError as error:
        return _does_not_speak_tls(address) if error.reason == "WRONG_VERSION_NUMBER" else None
    except (OSError, InvalidRequest):
        pass  # nobody is there, or our own files are being replaced
    return None


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE.total_seconds())


def _speaks_tls(connection: socket.socket) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(connection).close()
    except OSError:
        return False
    return True


def _hangs_up(address: str, tls: ClientTls) -> bool:
    """Whether the master ends the connection right after the handshake; else it begins to speak."""
    name = tls.server_name or address.rpartition(":")[0].strip("[]")
    with _connect(address) as connection, tls.context().wrap_socket(connection, server_hostname=name) as secured:
        try:
            return not secured.recv(1)
        except ConnectionError:
            return True


def _called_without(address: str) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"the master at {address} speaks TLS, and was called without",
        hint="set FLEETEST_TLS_CA to the file of the CA that signed its certificate, or FLEETEST_TLS=1 when it is a "
        "public one",
    )


def _wants_a_certificate(address: str, tls: ClientTls) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"the master at {address} ended the connection: it "
        + ("does not trust the certificate that it was shown" if tls.certificate else "wants to see a certificate"),
        hint="FLEETEST_TLS_CERT and FLEETEST_TLS_KEY must name a certificate that its FLEETEST_TLS_CLIENT_CA signed",
    )


def _does_not_speak_tls(address: str) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"the master at {address} does not speak TLS",
        hint="give it a certificate (FLEETEST_TLS_CERT, FLEETEST_TLS_KEY); or set FLEETEST_TLS=0 here, if whoever can "
        "listen on the network may know the token",
    )


def _not_trusted(address: str, error: ssl.SSLCertVerificationError) -> DependencyUnavailable:
    certificate = f"the certificate of the master at {address}"
    if error.verify_code == _EXPIRED:
        return DependencyUnavailable(
            f"{certificate} has expired", hint="renew it; the master takes the new file without a restart"
        )
    if error.verify_code == _NOT_YET_VALID:
        return DependencyUnavailable(f"{certificate} is not valid yet", hint="compare the clocks of both machines")
    if error.verify_code in _WRONG_NAME:
        return DependencyUnavailable(
            f"{certificate} is for another name: {error.verify_message}",
            hint="call the master by a name in its certificate, or set FLEETEST_TLS_SERVER_NAME to one",
        )
    return DependencyUnavailable(
        f"{certificate} is signed by nobody who is trusted here: {error.verify_message}",
        hint="set FLEETEST_TLS_CA to the file of the CA that signed it",
    )
