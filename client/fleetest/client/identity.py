"""Says with every call who calls: token, protocol, and an id of its own by which both sides' logs find it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from fleetest.common.ids import new_token
from fleetest.common.protocol import PROTOCOL, PROTOCOL_HEADER, REQUEST_ID_HEADER

__all__ = ["identified"]

_Stub = TypeVar("_Stub")

_REQUEST_ID_LENGTH: Final = 22


def identified(stub: _Stub, token: str) -> _Stub:
    """
    The same stub, whose calls say who makes them; with an empty token they send no `authorization`.

    Not by gRPC's interceptors: a call goes through several tasks then, and takes half as long again.
    """
    always = [(PROTOCOL_HEADER, str(PROTOCOL))]
    if token:
        always.append(("authorization", f"Bearer {token}"))
    for name, call in list(vars(stub).items()):
        setattr(stub, name, _saying(call, always))
    return stub


def _saying(call: Callable[..., Any], always: Sequence[tuple[str, str]]) -> Callable[..., Any]:
    def identified_call(*request: Any, **settings: Any) -> Any:
        own = (REQUEST_ID_HEADER, new_token()[:_REQUEST_ID_LENGTH])
        return call(*request, metadata=(*always, own), **settings)

    return identified_call
