"""Digests: the lower-case hexadecimal SHA-256 of some content, which is also its name."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from fleetest.common.errors import InvalidRequest

__all__ = ["check_digest", "digest_of", "is_digest"]

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def digest_of(content: bytes) -> str:
    """The digest that names `content`."""
    return hashlib.sha256(content).hexdigest()


def is_digest(text: str) -> bool:
    """Whether `text` is spelt as a digest is."""
    return _DIGEST.fullmatch(text) is not None


def check_digest(text: str) -> str:
    """
    `text` again. Digests become file names, so everything that comes from outside passes here.

    Raises:
        InvalidRequest: it is not spelt as a digest is.
    """
    if not is_digest(text):
        raise InvalidRequest(
            f"not a digest: {text[:80]!r}",
            hint="A digest is the SHA-256 of the content, as 64 lower-case hex digits.",
        )
    return text
