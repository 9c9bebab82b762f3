"""Every stored token: made, found, used up, and ended."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec
import structlog

from fleetest.common.clock import Clock
from fleetest.common.errors import Forbidden, InvalidRequest, NotFound, Unauthenticated
from fleetest.master.access.principals import Access, Principal
from fleetest.master.access.tokens import Token, TokenKind, TokenText
from fleetest.master.store.ports import Documents

__all__ = ["TokenBook", "TokenOrder"]

_log = structlog.get_logger()

_KIND: Final = "token"
_MOST_REMEMBERED: Final = 4096
_MOST_DESCRIPTION: Final = 200
_MOST_LABELS: Final = 20
_MOST_WORKERS: Final = 10_000

NOT_KNOWN: Final = "this master does not know the token"
"""Said of every token whose secret is wrong, whatever else is right about it."""

ASK: Final = "ask whoever runs the master for a new one: fleetest token create"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOrder:
    """What a new token is to be; see `Token`."""

    kind: TokenKind
    description: str = ""
    lifetime: timedelta | None = None
    project: str = ""
    access: Access = Access.WRITE
    worker_id_prefix: str = ""
    required_labels: Mapping[str, str] = field(default_factory=dict)
    most_workers: int = 0

    def check(self) -> None:
        """
        Raises:
            InvalidRequest: it makes no sense.
        """
        if len(self.description) > _MOST_DESCRIPTION or (not self.description.isprintable() and self.description):
            raise InvalidRequest(f"a description is one line of at most {_MOST_DESCRIPTION} characters")
        if self.lifetime is not None and self.lifetime <= timedelta():
            raise InvalidRequest("a token must live for some time before it expires")
        if self.project and self.access is Access.ADMIN:
            raise InvalidRequest(
                "admin access is to the whole fleet, and cannot be limited to a project",
                hint="leave the project out, or give read or write access",
            )
        if len(self.required_labels) > _MOST_LABELS:
            raise InvalidRequest(f"a token can require {_MOST_LABELS} labels at most")
        if not 0 <= self.most_workers <= _MOST_WORKERS:
            raise InvalidRequest(f"a token can count {_MOST_WORKERS} workers at most, not {self.most_workers}")


class TokenBook:
    """
    The tokens in the store, which all masters share.

    What was read of a token is believed for `memory`, and that is how long after its revocation at another master it
    may still admit somebody here.
    """

    def __init__(self, documents: Documents, clock: Clock, *, memory: timedelta) -> None:
        self._documents = documents
        self._clock = clock
        self._memory = memory
        self._remembered: OrderedDict[str, tuple[float, Token | None]] = OrderedDict()

    async def create(self, order: TokenOrder, *, by: str) -> tuple[Token, TokenText]:
        """
        A new token, and its text, which cannot be had again.

        Raises:
            InvalidRequest: the order makes no sense.
        """
        order.check()
        text, now = TokenText.new(order.kind), self._clock.now()
        token = Token(
            token_id=text.token_id,
            kind=order.kind,
            digest=text.digest(),
            created_at=now,
            created_by=by,
            description=order.description,
            expires_at=_later(now, order.lifetime),
            project=order.project,
            access=order.access,
            worker_id_prefix=order.worker_id_prefix,
            required_labels=order.required_labels,
            most_workers=order.most_workers,
        )
        await self._documents.put_if_absent(_KIND, token.token_id, _encode(token))
        _log.info(
            "token_created", token=token.name, expires_at=token.expires_at and token.expires_at.isoformat(), by=by
        )
        return token, text

    async def list(self, *, include_ended: bool = False) -> Sequence[Token]:
        """Newest first."""
        now = self._clock.now()
        tokens = [_decode(value) for _, value in await self._documents.list_documents(_KIND)]
        shown = [token for token in tokens if include_ended or not token.ended(now)]
        return sorted(shown, key=lambda token: token.created_at, reverse=True)

    async def revoke(self, token_id: str, *, by: str) -> Token:
        """
        End a token. Idempotent: the first time stands.

        Raises:
            NotFound: there is none of this id.
        """

        def revoked(token: Token) -> Token:
            if token.revoked_at is not None:
                return token
            return msgspec.structs.replace(token, revoked_at=self._clock.now(), revoked_by=by)

        token = await self._change(token_id, revoked)
        _log.info("token_revoked", token=token.name, by=by)
        return token

    async def verify(self, text: str) -> Principal:
        """
        Whoever shows this text.

        Raises:
            Unauthenticated: it is no token, or one that has ended.
            DependencyUnavailable: the store does not answer.
        """
        shown = TokenText.parse(text)
        token = await self._find(shown.token_id) if shown else None
        # Compared whether there is a token or not, so that time does not tell.
        known = token.digest if token else "0" * 64
        right = hmac.compare_digest(known, shown.digest() if shown else "")
        if token is None or not right:
            raise Unauthenticated(NOT_KNOWN, hint=ASK)
        self._check_alive(token)
        return token.principal()

    async def check_ended(self, token_id: str) -> None:
        """
        Ask the store, not memory, whether a token that was verified before still admits its owner.

        Raises:
            Unauthenticated: it does not.
            DependencyUnavailable: the store does not answer.
        """
        self._remembered.pop(token_id, None)
        token = await self._find(token_id)
        if token is None:
            raise Unauthenticated(NOT_KNOWN, hint=ASK)
        self._check_alive(token)

    async def count_worker(self, principal: Principal, worker_id: str) -> None:
        """
        Let a worker join. Idempotent: one that has joined with the token before counts once.

        Raises:
            Forbidden: as many others as may have done so already.
        """
        if not principal.token_id:
            return

        def joined(token: Token) -> Token:
            if not token.most_workers or worker_id in token.workers:
                return token
            if len(token.workers) >= token.most_workers:
                raise Forbidden(f"{token.name} has let in its {token.most_workers} workers", hint=ASK)
            return msgspec.structs.replace(token, workers=(*token.workers, worker_id))

        await self._change(principal.token_id, joined)

    def _check_alive(self, token: Token) -> None:
        if token.revoked_at is not None:
            raise Unauthenticated(f"the {token.name} was revoked at {_moment(token.revoked_at)}", hint=ASK)
        if token.ended(self._clock.now()):
            assert token.expires_at is not None
            raise Unauthenticated(f"the {token.name} expired at {_moment(token.expires_at)}", hint=ASK)

    async def _find(self, token_id: str) -> Token | None:
        """That there is none is remembered as well: neither time nor the store's load tells which ids exist."""
        now = self._clock.monotonic()
        if token_id in self._remembered:
            read_at, token = self._remembered[token_id]
            if now - read_at < self._memory.total_seconds():
                return token
        value = await self._documents.get_document(_KIND, token_id)
        token = None if value is None else _decode(value)
        self._remembered[token_id] = (now, token)
        self._remembered.move_to_end(token_id)
        if len(self._remembered) > _MOST_REMEMBERED:
            self._remembered.popitem(last=False)
        return token

    async def _change(self, token_id: str, change: Callable[[Token], Token]) -> Token:
        while True:
            value = await self._documents.get_document(_KIND, token_id)
            if value is None:
                raise NotFound(f"there is no token {token_id!r}", hint="list tokens: fleetest token ls --all")
            before = _decode(value)
            after = change(before)
            if after == before or await self._documents.replace_document(
                _KIND, token_id, expected=value, value=_encode(after)
            ):
                self._remembered.pop(token_id, None)
                return after


def _encode(token: Token) -> str:
    return msgspec.json.encode(token).decode()


def _decode(value: str) -> Token:
    return msgspec.json.decode(value, type=Token)


def _later(now: datetime, lifetime: timedelta | None) -> datetime | None:
    try:
        return None if lifetime is None else now + lifetime
    except OverflowError:
        raise InvalidRequest("a token cannot live so long") from None


def _moment(at: datetime) -> str:
    return at.isoformat(timespec="seconds")
