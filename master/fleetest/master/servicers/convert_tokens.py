"""Tokens between the wire and the master's own values."""

from __future__ import annotations

from typing import Final

from fleetest.common.convert import time_to_proto
from fleetest.common.errors import InvalidRequest
from fleetest.master.access.principals import Access
from fleetest.master.access.tokens import Token, TokenKind
from fleetest.v1 import fleet_pb2

__all__ = ["access_from_proto", "token_to_proto"]

_KINDS: Final = {TokenKind.CLIENT: fleet_pb2.TOKEN_KIND_CLIENT, TokenKind.JOIN: fleet_pb2.TOKEN_KIND_JOIN}
_ACCESS: Final = {
    Access.READ: fleet_pb2.TOKEN_ACCESS_READ,
    Access.WRITE: fleet_pb2.TOKEN_ACCESS_WRITE,
    Access.ADMIN: fleet_pb2.TOKEN_ACCESS_ADMIN,
}
_ACCESS_OF: Final = {message: access for access, message in _ACCESS.items()}


def access_from_proto(message: fleet_pb2.TokenAccess.ValueType) -> Access:
    """
    Raises:
        InvalidRequest: this master does not know it.
    """
    try:
        return _ACCESS_OF[message]
    except KeyError:
        raise InvalidRequest(f"there is no access {message}") from None


def token_to_proto(token: Token) -> fleet_pb2.Token:
    """All that may be shown."""
    client = token.kind is TokenKind.CLIENT
    return fleet_pb2.Token(
        token_id=token.token_id,
        kind=_KINDS[token.kind],
        description=token.description,
        created_at=time_to_proto(token.created_at),
        created_by=token.created_by,
        expires_at=time_to_proto(token.expires_at) if token.expires_at else None,
        revoked_at=time_to_proto(token.revoked_at) if token.revoked_at else None,
        revoked_by=token.revoked_by,
        project=token.project,
        access=_ACCESS[token.access] if client else fleet_pb2.TOKEN_ACCESS_UNSPECIFIED,
        worker_id_prefix=token.worker_id_prefix,
        required_labels=token.required_labels,
        most_workers=token.most_workers,
        workers_joined=len(token.workers),
    )
