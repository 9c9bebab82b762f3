"""
A server that speaks MongoDB's wire protocol and refuses what it is told to refuse.

For what a real one does only when it is broken, secured or one of several: the engine that tests have is neither.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import bson

__all__ = ["refusing_mongodb"]

_HEADER: Final = struct.Struct("<iiii")  # length, id, the id that it answers, kind
_MESSAGE: Final = 2013
_FLAGS_AND_SECTION: Final = b"\0\0\0\0\0"
_HELLO: Final = frozenset({"hello", "isMaster", "ismaster"})


@asynccontextmanager
async def refusing_mongodb(
    directory: Path, refusals: Mapping[str, Mapping[str, Any]], *, credentials: str = "", version: str = "8.0.4"
) -> AsyncIterator[str]:
    """
    Gives its URL. Every command is answered with success and nothing found, unless named in `refusals`.

    Args:
        refusals: the error with which a command, by its name, is answered; may be changed meanwhile.
        credentials: `user:password@` for the URL.
    """
    socket = directory / "mongodb.sock"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length, number, _, kind = _HEADER.unpack(await reader.readexactly(_HEADER.size))
                body = await reader.readexactly(length - _HEADER.size)
                # The first greeting may come in the form that servers before 3.6 knew.
                command = _first_document(body[len(_FLAGS_AND_SECTION) :]) if kind == _MESSAGE else {"ismaster": 1}
                answer = _FLAGS_AND_SECTION + bson.encode(_answer(command, refusals, version))
                writer.write(_HEADER.pack(_HEADER.size + len(answer), 0, number, _MESSAGE) + answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, socket)
    try:
        yield f"mongodb://{credentials}{quote(str(socket), safe='')}/fleetest?directConnection=true"
    finally:
        server.close()


def _first_document(sections: bytes) -> dict[str, Any]:
    """The command itself; what follows are documents that it writes."""
    return bson.decode(sections[: int.from_bytes(sections[:4], "little")])


def _answer(command: Mapping[str, Any], refusals: Mapping[str, Mapping[str, Any]], version: str) -> dict[str, Any]:
    name = next(iter(command))
    if name in refusals:
        return {"ok": 0.0, **refusals[name]}
    if name in _HELLO:
        return {"ok": 1.0, "isWritablePrimary": True, "helloOk": True, "minWireVersion": 0, "maxWireVersion": 25}
    if name == "buildInfo":
        return {"ok": 1.0, "version": version, "versionArray": [*map(int, version.split(".")), 0]}
    if name in {"find", "listCollections"}:
        return {"ok": 1.0, "cursor": {"id": 0, "ns": "fleetest.any", "firstBatch": []}}
    return {"ok": 1.0, "n": 1, "nModified": 1}
