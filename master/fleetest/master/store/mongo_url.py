"""`FLEETEST_MONGODB_URL`: what it must be, and what we add to it."""

from __future__ import annotations

import re
import warnings
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError
from pymongo.write_concern import WriteConcern

from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import Secret
from fleetest.master.store.mongo_schema import Document

__all__ = ["DATABASE", "connect", "shown", "write_concern"]

DATABASE: Final = "fleetest"
"""Used when the URL names none."""

_SCHEMES: Final = ("mongodb://", "mongodb+srv://")
_HINT: Final = (
    "FLEETEST_MONGODB_URL reads mongodb://user:password@host1,host2/fleetest?replicaSet=rs0, or mongodb+srv://...; "
    "special characters in user and password are percent-encoded (@ is %40, / is %2F)"
)

# What the URL does not say. A request must not hang for the driver's usual 30 seconds, or without end.
_OPTIONS: Final[dict[str, Any]] = {
    "appname": "fleetest",
    "serverSelectionTimeoutMS": 5_000,
    "connectTimeoutMS": 5_000,
    "socketTimeoutMS": 30_000,
    "waitQueueTimeoutMS": 10_000,
}
# What was acknowledged is in the journal of a majority: it survives every process, and the loss of a primary.
_WRITE_CONCERN: Final[dict[str, Any]] = {"w": "majority", "j": True, "wtimeout": 10_000}


def connect(url: Secret) -> AsyncMongoClient[Document]:
    """
    A client that connects when it is first used.

    Raises:
        InvalidRequest: this is no URL of a MongoDB. The message holds nothing of user and password.
    """
    text = url.reveal()
    if not text.startswith(_SCHEMES):
        raise InvalidRequest("not the URL of a MongoDB: it begins with another scheme", hint=_HINT)
    given = {name.lower() for name, _ in parse_qsl(text.partition("?")[2], keep_blank_values=True)}
    options = {name: value for name, value in _OPTIONS.items() if name.lower() not in given}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an option that is misspelt would only be warned of
            client: AsyncMongoClient[Document] = AsyncMongoClient(text, document_class=dict, **options)
    except (ConfigurationError, OSError, TypeError, UserWarning, ValueError) as error:
        reason = "" if _quotes_credentials(str(error), text) else f": {error}"
        raise InvalidRequest(f"not the URL of a MongoDB{reason}", hint=_HINT) from None
    if not client.write_concern.acknowledged:
        raise InvalidRequest(
            "w=0 in the URL of the MongoDB: it would acknowledge nothing, and we could promise nothing",
            hint="leave w out: the default, majority, survives the loss of a primary",
        )
    return client


def _quotes_credentials(message: str, url: str) -> bool:
    """Whether it holds a word that stands before the hosts, also where that is not escaped as it should be."""
    credentials = url.partition("://")[2].rpartition("@")[0]
    return bool(_words(f"{credentials} {unquote(credentials)}") & _words(message))


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{2,}", text))


def write_concern(client: AsyncMongoClient[Document]) -> WriteConcern:
    """What the URL says of it, and `_WRITE_CONCERN` where it says nothing."""
    chosen = _WRITE_CONCERN | client.write_concern.document
    return WriteConcern(w=chosen["w"], wtimeout=chosen["wtimeout"], j=chosen["j"])


def shown(url: Secret) -> str:
    """The URL as it may be shown: scheme and hosts alone."""
    scheme, _, rest = url.reveal().partition("://")
    hosts = rest.partition("?")[0].partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{unquote(hosts)}"
