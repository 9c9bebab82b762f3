"""Credentials for requests: given, or a token that is asked for."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote

import httpx

from fleetest.worker.checks.exchange import NoResponse, send
from fleetest.worker.checks.json_values import text_of
from fleetest.worker.checks.model import AuthModel, OAuth2Model
from fleetest.worker.checks.placeholders import Variables, filled
from fleetest.worker.checks.requests import Credentials, joined

__all__ = ["Authentication"]

_EARLIER_SECONDS: Final = 10.0
"""So long before its end a token is no longer used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    text: str
    ends_at: float


class Authentication:
    """
    For the requests of one file.

    Args:
        on_secret: hears of each text that must not be shown.
    """

    def __init__(self, client: httpx.AsyncClient, base_url: str, *, on_secret: Callable[[str], None]) -> None:
        self._client = client
        self._base_url = base_url
        self._on_secret = on_secret
        self._tokens: dict[tuple[str, ...], _Token] = {}

    async def credentials(self, auth: AuthModel | None, variables: Variables, limit: timedelta) -> Credentials:
        """
        Raises:
            Missing: a placeholder has no value.
            NoResponse: there is no token to be had.
        """
        if auth is None:
            return Credentials()
        if auth.bearer is not None:
            return _bearer(self._secret(auth.bearer, variables))
        if auth.basic is not None:
            username = text_of(filled(auth.basic.username, variables))
            return _basic(username, self._secret(auth.basic.password, variables))
        if auth.api_key is not None:
            key = self._secret(auth.api_key.value, variables)
            if auth.api_key.header is not None:
                return Credentials(headers={auth.api_key.header: key})
            return Credentials(query={auth.api_key.query or "": key})
        assert auth.oauth2 is not None
        return _bearer(await self._token(auth.oauth2, variables, limit))

    def _secret(self, text: str, variables: Variables) -> str:
        value = text_of(filled(text, variables))
        self._on_secret(value)
        return value

    async def _token(self, auth: OAuth2Model, variables: Variables, limit: timedelta) -> str:
        url = joined(self._base_url, text_of(filled(auth.token_url, variables)))
        client_id, scope = (text_of(filled(text, variables)) for text in (auth.client_id, auth.scope))
        secret = self._secret(auth.client_secret, variables)
        key = (url, client_id, secret, scope)
        if (known := self._tokens.get(key)) is not None and time.monotonic() < known.ends_at:
            return known.text
        form = {"grant_type": "client_credentials", **({"scope": scope} if scope else {})}
        headers = {"accept": "application/json"}
        if auth.credentials == "body":
            form |= {"client_id": client_id, "client_secret": secret}
        else:  # form-encoded first: RFC 6749, section 2.3.1
            headers |= _basic(quote(client_id, safe=""), quote(secret, safe="")).headers
        try:
            request = self._client.build_request("POST", url, data=form, headers=headers)
            exchange = await send(self._client, request, limit=limit, follow_redirects=False)
            answer = exchange.json()
        except NoResponse as error:
            raise NoResponse(f"no token: {error}") from error
        except (ValueError, httpx.InvalidURL) as error:
            raise NoResponse(f"no token of {url}: {error}") from error
        self._tokens[key] = token = _read_token(answer, exchange.status, url)
        self._on_secret(token.text)
        return token.text


def _bearer(token: str) -> Credentials:
    return Credentials(headers={"Authorization": f"Bearer {token}"})


def _basic(username: str, password: str) -> Credentials:
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    return Credentials(headers={"Authorization": f"Basic {encoded}"})


def _read_token(answer: Any, status: int, url: str) -> _Token:
    """As RFC 6749, section 5, has answers and errors."""
    fields = answer if isinstance(answer, dict) else {}
    text = fields.get("access_token")
    if status != httpx.codes.OK or not isinstance(text, str) or not text:
        reason = " ".join(str(fields[key])[:200] for key in ("error", "error_description") if key in fields)
        raise NoResponse(f"no token of {url}: it answered with {status} {reason}".rstrip())
    lifetime = fields.get("expires_in")
    seconds = float(lifetime) if isinstance(lifetime, int | float) else float("inf")
    return _Token(text=text, ends_at=time.monotonic() + seconds - _EARLIER_SECONDS)
