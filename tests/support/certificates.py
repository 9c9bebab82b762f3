"""Certificate files for tests: an authority, and what it signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

__all__ = ["Authority", "Pair"]


@dataclass(frozen=True, kw_only=True)
class Pair:
    certificate: Path
    key: Path


class Authority:
    """Writes its files below a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._authority = trustme.CA()
        self._directory = directory
        self.ca = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(str(self.ca))

    def issue(self, *names: str, file: str = "server", lasts: timedelta = timedelta(days=30)) -> Pair:
        """A certificate for these names; one that has run out already when `lasts` is negative."""
        now = datetime.now(UTC)
        issued = self._authority.issue_cert(
            *(names or ("localhost", "127.0.0.1")), not_before=now - timedelta(days=60), not_after=now + lasts
        )
        pair = Pair(certificate=self._directory / f"{file}.pem", key=self._directory / f"{file}.key")
        pair.certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        return pair
