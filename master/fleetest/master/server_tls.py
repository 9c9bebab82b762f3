"""The certificate that a master shows, taken anew from its files when they change."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
import structlog

from fleetest.common.certificates import check_authorities, check_server_pair, read_pem
from fleetest.common.errors import InvalidRequest

__all__ = ["ServerTls"]

_log = structlog.get_logger()

_SOON: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """
    Args:
        certificate, key: PEM files: the certificate and those that signed it, and its key.
        client_ca: whoever connects must show a certificate that these authorities signed; `None` asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def check(self) -> datetime:
        """
        When the certificate expires.

        Raises:
            InvalidRequest: the files cannot be used.
        """
        if self.client_ca is not None:
            check_authorities(self.client_ca)
        return check_server_pair(self.certificate, self.key)

    def credentials(self) -> grpc.ServerCredentials:
        """
        For a port. Each new connection is shown what the files hold by then, or, while that cannot be used, what they
        held before.

        Raises:
            InvalidRequest: the files cannot be used now.
        """
        files = _Files(self)
        return grpc.dynamic_ssl_server_credentials(
            files.configuration,
            files.changed,  # type: ignore[arg-type]  # the stub forgets that it may answer None: nothing changed
            require_client_authentication=self.client_ca is not None,
        )


class _Files:
    """gRPC asks on threads of its own, at every handshake."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._paths = [path for path in (tls.certificate, tls.key, tls.client_ca) if path is not None]
        self._seen = self._look()
        self.configuration = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """`None` goes on with the present configuration."""
        seen = self._look()
        if seen == self._seen:
            return None
        self._seen = seen
        try:
            configuration = self._read()
        except InvalidRequest as error:  # perhaps half replaced: the next change brings us here again
            _log.warning("certificate_not_taken", reason=error.message)
            return None
        return configuration

    def _look(self) -> list[tuple[int, int, int] | None]:
        return [_identity(path) for path in self._paths]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        expires_at = self._tls.check()
        level = logging.WARNING if expires_at - datetime.now(UTC) < _SOON else logging.INFO
        _log.log(level, "certificate_taken", certificate=str(self._tls.certificate), expires_at=expires_at.isoformat())
        return grpc.ssl_server_certificate_configuration(
            [(read_pem(self._tls.key, "the key"), read_pem(self._tls.certificate, "the certificate"))],
            root_certificates=read_pem(self._tls.client_ca, "the CA file") if self._tls.client_ca else None,
        )


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
