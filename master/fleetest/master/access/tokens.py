"""
Stored tokens: what somebody keeps secret, and what the master keeps of it.

A token reads `flt_<kind>_<id>_<secret>`. The id finds the record and may be shown; the secret is 256 random bits, of
which only the SHA-256 is kept: a slow hash guards passwords, which can be guessed, and would guard nothing here.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec

from fleetest.common.settings import Secret
from fleetest.master.access.principals import Access, Audience, Principal

__all__ = ["Token", "TokenKind", "TokenText"]

_ID_BYTES: Final = 6
_SECRET_BYTES: Final = 32
_TEXT: Final = re.compile(r"flt_(?P<kind>client|join)_(?P<id>[0-9a-f]{12})_(?P<secret>[0-9a-f]{64})", re.ASCII)


class TokenKind(StrEnum):
    """Whom a token lets in."""

    CLIENT = "client"
    JOIN = "join"

    @property
    def audience(self) -> Audience:
        return Audience.WORKER if self is TokenKind.JOIN else Audience.CLIENT


class TokenText:
    """A token as its owner holds it. Its repr shows the id only."""

    __slots__ = ("_secret", "kind", "token_id")

    def __init__(self, kind: TokenKind, token_id: str, secret: Secret) -> None:
        self.kind = kind
        self.token_id = token_id
        self._secret = secret

    @classmethod
    def new(cls, kind: TokenKind) -> TokenText:
        return cls(kind, secrets.token_hex(_ID_BYTES), Secret(secrets.token_hex(_SECRET_BYTES)))

    @classmethod
    def parse(cls, text: str) -> TokenText | None:
        """`None` when it is not of this form."""
        match = _TEXT.fullmatch(text)
        return match and cls(TokenKind(match["kind"]), match["id"], Secret(match["secret"]))

    def reveal(self) -> str:
        """The whole of it, for the one answer that tells its owner."""
        return f"flt_{self.kind}_{self.token_id}_{self._secret.reveal()}"

    def digest(self) -> str:
        """What is kept of the secret."""
        return hashlib.sha256(self.reveal().encode()).hexdigest()

    def __repr__(self) -> str:
        return f"TokenText(flt_{self.kind}_{self.token_id}_***)"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """
    The record of a token.

    Args:
        digest: SHA-256 of the token, hexadecimal.
        expires_at: from then on it admits nobody; `None` means never.
        project, access: of a client, see `Principal`.
        worker_id_prefix, required_labels: of those who join, see `Principal`.
        most_workers: how many different workers may join with it; 0 means any number.
        workers: those that did, where they are counted.
    """

    token_id: str
    kind: TokenKind
    digest: str
    created_at: datetime
    created_by: str = ""
    description: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_by: str = ""
    project: str = ""
    access: Access = Access.WRITE
    worker_id_prefix: str = ""
    required_labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    most_workers: int = 0
    workers: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Token({self.token_id!r}, {self.kind.value!r})"

    @property
    def name(self) -> str:
        """How logs and messages call it."""
        return f"{self.kind.value} token {self.token_id}" + (f" ({self.description})" if self.description else "")

    def ended(self, now: datetime) -> bool:
        """Whether it admits nobody any more."""
        return self.revoked_at is not None or (self.expires_at is not None and now >= self.expires_at)

    def principal(self) -> Principal:
        """Whoever shows it."""
        return Principal(
            name=self.name,
            audiences=frozenset([self.kind.audience]),
            token_id=self.token_id,
            access=self.access,
            project=self.project,
            worker_id_prefix=self.worker_id_prefix,
            required_labels=self.required_labels,
        )
