"""The one place where a credential becomes a principal."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

import structlog

from fleetest.common.errors import Forbidden, Unauthenticated
from fleetest.master.access.methods import check_method, is_open
from fleetest.master.access.principals import ANYBODY, Audience, Principal
from fleetest.master.access.token_book import NOT_KNOWN, TokenBook

__all__ = ["Gatekeeper"]

_log = structlog.get_logger()

_HINT: Final = "set FLEETEST_TOKEN: clients need a client token, workers a join token of the master"


class Gatekeeper:
    """
    Decides by token who may call what.

    Args:
        root_tokens: by audience, from the settings; empty admits everybody, which a master does on loopback only.
        tokens: those that were made since.
    """

    def __init__(self, root_tokens: Mapping[Audience, str], tokens: TokenBook | None = None) -> None:
        self._roots = {audience: _digest(token) for audience, token in root_tokens.items()}
        self._tokens = tokens

    async def admit(self, method: str, authorization: str | None) -> Principal:
        """
        Args:
            method: full name, as in `/fleetest.v1.RunService/GetRun`.

        Raises:
            Unauthenticated: no token, a wrong one, or one that has ended.
            Forbidden: it is for somebody else, or for less.
            DependencyUnavailable: whether it is right cannot be found out now.
        """
        if not self._roots or is_open(method):
            return ANYBODY
        try:
            principal = await self._identify(authorization)
            check_method(principal, method)
        except (Unauthenticated, Forbidden) as error:
            _log.warning("call_refused", reason=error.message)
            raise
        return principal

    async def _identify(self, authorization: str | None) -> Principal:
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise Unauthenticated("this master wants a token", hint=_HINT)
        text = text.strip()
        roots = self._root_audiences(text)
        if roots:
            return Principal(name=f"root {' and '.join(sorted(roots))} token", audiences=roots)
        if self._tokens is None:
            raise Unauthenticated(NOT_KNOWN, hint=_HINT)
        return await self._tokens.verify(text)

    def _root_audiences(self, text: str) -> frozenset[Audience]:
        """Every token is compared in constant time, so that a guess learns nothing."""
        shown = _digest(text)
        return frozenset([audience for audience, known in self._roots.items() if hmac.compare_digest(known, shown)])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
