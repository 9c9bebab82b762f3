"""
Between pieces of blobs and the messages that carry them.

A message costs a few hundred microseconds whatever it holds, so small pieces share one, up to 1 MiB together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from fleetest.common.digest import check_digest
from fleetest.common.errors import InvalidRequest
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.v1.blob_pb2 import BlobChunk

__all__ = ["MAX_DIGESTS", "BlobPiece", "Packer", "unpack"]

MAX_DIGESTS: Final = 10_000
"""How many digests one request may name."""

_MAX_PIECES: Final = 1000  # of a message: empty files would fill it only by their thousands


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobPiece:
    """
    A part of a blob, at most 1 MiB.

    Args:
        last: the blob ends here.
    """

    digest: str
    offset_bytes: int
    content: bytes = field(repr=False)
    last: bool


class Packer:
    """Collects pieces until a message is full. The order stays."""

    def __init__(self) -> None:
        self._pieces: list[BlobPiece] = []
        self._size_bytes = 0

    def add(self, piece: BlobPiece) -> BlobChunk | None:
        """Take a piece; answers the message before it when there is no room for both."""
        full = self._size_bytes + len(piece.content) > CHUNK_BYTES or len(self._pieces) == _MAX_PIECES
        message = self.flush() if full else None
        self._pieces.append(piece)
        self._size_bytes += len(piece.content)
        return message

    def flush(self) -> BlobChunk | None:
        """The message of what has been collected, if anything has."""
        if not self._pieces:
            return None
        first, *more = (_chunk(piece) for piece in self._pieces)
        first.more.extend(more)
        self._pieces = []
        self._size_bytes = 0
        return first


def _chunk(piece: BlobPiece) -> BlobChunk:
    return BlobChunk(digest=piece.digest, offset_bytes=piece.offset_bytes, content=piece.content, last=piece.last)


def unpack(message: BlobChunk) -> list[BlobPiece]:
    """
    The pieces of a message, whoever sent it.

    Raises:
        InvalidRequest: a piece is too large, lies nowhere, or names no blob.
    """
    return [_piece(message), *(_piece_inside(chunk) for chunk in message.more)]


def _piece_inside(chunk: BlobChunk) -> BlobPiece:
    if chunk.more:
        raise InvalidRequest("a chunk inside a chunk holds further ones; only the first of a message may")
    return _piece(chunk)


def _piece(chunk: BlobChunk) -> BlobPiece:
    if len(chunk.content) > CHUNK_BYTES:
        raise InvalidRequest(f"a chunk has {len(chunk.content)} bytes; the limit is {CHUNK_BYTES}")
    if chunk.offset_bytes < 0:
        raise InvalidRequest(f"a chunk begins at {chunk.offset_bytes}")
    return BlobPiece(
        digest=check_digest(chunk.digest), offset_bytes=chunk.offset_bytes, content=chunk.content, last=chunk.last
    )
