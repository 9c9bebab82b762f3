"""Which masters are called over TLS, and what is shown and trusted then."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetest.common.certificates import check_authorities, check_client_pair, read_pem
from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import path, setting, switch, text

__all__ = ["ClientTls", "TlsSettings"]

_SYSTEM_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/cert.pem",  # macOS, BSD
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """
    How a client or a worker calls a master over TLS.

    Files are read each time that a channel is opened, so that renewed ones are taken.

    Args:
        ca: file of the authorities that are trusted; `None` means the system's.
        certificate, key: files of what is shown to a master that asks for it.
        server_name: the name that the master's certificate is for, where it is not the one in the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""

    def check(self) -> None:
        """
        Raises:
            InvalidRequest: a file is absent, unreadable, of the wrong kind or out of date.
        """
        if bool(self.certificate) != bool(self.key):
            raise InvalidRequest(
                "a certificate and its key come together", hint="set both FLEETEST_TLS_CERT and FLEETEST_TLS_KEY"
            )
        if self.ca is not None:
            check_authorities(self.ca)
        if self.certificate is not None and self.key is not None:
            check_client_pair(self.certificate, self.key)

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """
        Authorities, key and certificates, in the order in which gRPC takes them.

        Raises:
            InvalidRequest: as `check`.
        """
        self.check()
        authorities = self.ca or _system_bundle()
        return (
            read_pem(authorities, "the CA file") if authorities else None,
            read_pem(self.key, "the key") if self.key else None,
            read_pem(self.certificate, "the certificate") if self.certificate else None,
        )

    def context(self) -> ssl.SSLContext:
        """
        The same for Python's own TLS.

        Raises:
            InvalidRequest: as `check`.
        """
        self.check()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["h2"])
        authorities = self.ca or _system_bundle()
        if authorities:
            context.load_verify_locations(cafile=authorities)
        else:
            context.load_default_certs()
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """
    What the settings of whoever calls a master have in common.

    Args:
        tls_switch: `None` means on when anything else about TLS is set. Who names an authority wants it asked: a
            forgotten switch must not send a token in the clear.
    """

    tls_switch: bool | None = setting("FLEETEST_TLS", switch, default=None)
    tls_ca: Path | None = setting("FLEETEST_TLS_CA", path, default=None)
    tls_certificate: Path | None = setting("FLEETEST_TLS_CERT", path, default=None)
    tls_key: Path | None = setting("FLEETEST_TLS_KEY", path, default=None)
    tls_server_name: str = setting("FLEETEST_TLS_SERVER_NAME", text, default="")

    @property
    def tls(self) -> ClientTls | None:
        """How masters are called over TLS; `None` means without."""
        anything = self.tls_ca or self.tls_certificate or self.tls_key or self.tls_server_name
        if not (anything if self.tls_switch is None else self.tls_switch):
            return None
        return ClientTls(
            ca=self.tls_ca, certificate=self.tls_certificate, key=self.tls_key, server_name=self.tls_server_name
        )


def _system_bundle() -> Path | None:
    """GRPC brings a list of public authorities, but companies add theirs to the system's."""
    candidates = (ssl.get_default_verify_paths().cafile, *_SYSTEM_BUNDLES)
    return next((Path(each) for each in candidates if each and Path(each).is_file()), None)
