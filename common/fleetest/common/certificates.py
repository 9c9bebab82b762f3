"""
Certificate files, looked at before they are used: what OpenSSL and gRPC say of a bad one is for their developers.

A pair is tried by a handshake in memory, with the very certificate as the only one that is trusted.
"""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["check_authorities", "check_client_pair", "check_server_pair", "read_pem"]

_TURNS: Final = 4  # more than any handshake takes


def read_pem(path: Path, what: str) -> bytes:
    """
    The content of a file.

    Raises:
        InvalidRequest: it cannot be read, or holds nothing that looks like PEM.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{what} {path} cannot be read: {error.strerror}") from None
    if b"-----BEGIN " not in content:
        raise InvalidRequest(
            f"{what} {path} is not PEM", hint="PEM is text that begins with -----BEGIN; openssl converts other forms"
        )
    return content


def check_authorities(path: Path) -> None:
    """
    Raises:
        InvalidRequest: the file holds no certificates.
    """
    read_pem(path, "the CA file")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        raise InvalidRequest(f"the CA file {path} holds no certificate: {_words(error)}") from None


def check_server_pair(certificate: Path, key: Path) -> datetime:
    """
    When the certificate expires.

    Raises:
        InvalidRequest: a server cannot use the two.
    """
    return _try(certificate, key, shown_by=ssl.PROTOCOL_TLS_SERVER, to=ssl.PROTOCOL_TLS_CLIENT)


def check_client_pair(certificate: Path, key: Path) -> datetime:
    """
    When the certificate expires.

    Raises:
        InvalidRequest: a client cannot use the two.
    """
    return _try(certificate, key, shown_by=ssl.PROTOCOL_TLS_CLIENT, to=ssl.PROTOCOL_TLS_SERVER)


class _EncryptedKey(Exception):
    """Asked for a password, which would otherwise be asked of whoever sits at the terminal."""


def _no_password() -> bytes:
    raise _EncryptedKey


def _context(side: ssl._SSLMethod, certificate: Path, key: Path) -> ssl.SSLContext:
    """Shows the pair and accepts whatever is shown to it."""
    context = ssl.SSLContext(side)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedKey:
        raise InvalidRequest(
            f"the key {key} is encrypted", hint=f"decrypt it: openssl pkey -in {key} -out plain.key"
        ) from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise InvalidRequest(
                f"the key {key} does not belong to the certificate {certificate}",
                hint="the file must begin with the certificate itself; those that signed it follow",
            ) from None
        raise InvalidRequest(f"{certificate} and {key} cannot be used: {_words(error)}") from None
    return context


def _try(certificate: Path, key: Path, *, shown_by: ssl._SSLMethod, to: ssl._SSLMethod) -> datetime:
    read_pem(certificate, "the certificate")
    read_pem(key, "the key")
    shows, checks = _context(shown_by, certificate, key), _context(to, certificate, key)
    checks.verify_mode = ssl.CERT_REQUIRED
    checks.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    checks.load_verify_locations(cafile=certificate)
    one_way, other_way = ssl.MemoryBIO(), ssl.MemoryBIO()
    shower = shows.wrap_bio(one_way, other_way, server_side=shown_by is ssl.PROTOCOL_TLS_SERVER)
    checker = checks.wrap_bio(other_way, one_way, server_side=to is ssl.PROTOCOL_TLS_SERVER)
    try:
        for side in (shower, checker) * _TURNS:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLError as error:
        raise InvalidRequest(f"the certificate {certificate} cannot be used: {_words(error)}") from None
    found = checker.getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(found["notAfter"])), tz=UTC)


def _words(error: ssl.SSLError) -> str:
    """What OpenSSL says, without where in its code it says so."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    return (error.reason or str(error)).lower().replace("_", " ")
