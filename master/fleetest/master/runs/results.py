"""
A case's result on its way through a master.

What a worker sends is kept as it came: the rules of a run look at a few fields of it, and whoever follows or lists the
run gets the rest, which nobody here has to take apart and put together again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fleetest.common.results import CacheOrigin
from fleetest.common.states import Outcome

__all__ = ["KeptResult", "decode_result", "encode_result"]


class KeptResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """
    What became of one case in one attempt; see `CaseResult` for its fields.

    Args:
        whole: the result as its worker put it, opaque here. With it, the fields below it are not filled in, and
            `case_id` alone may differ from what it says.
        cached_from: it is an earlier run's; `whole` does not say so.
    """

    case_id: str
    outcome: Outcome
    duration: timedelta = timedelta()
    file: str = ""
    line: int = 0
    uncacheable: str = ""
    whole: bytes = b""
    cached_from: CacheOrigin | None = None
    started_at: datetime | None = None
    message: str = ""
    details: str = ""
    stdout: str = ""
    stderr: str = ""
    log: str = ""
    truncated: bool = False
    properties: Mapping[str, str] = msgspec.field(default_factory=dict)


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(KeptResult)


def encode_result(result: KeptResult) -> bytes:
    """The stored form of one result."""
    return _ENCODER.encode(result)


def decode_result(data: bytes) -> KeptResult:
    """
    What `encode_result` was given.

    Raises:
        msgspec.DecodeError: a newer version wrote it.
    """
    return _DECODER.decode(data)
