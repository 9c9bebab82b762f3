from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.convert_blobs import BlobPiece, Packer, unpack
from fleetest.common.digest import digest_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.v1.blob_pb2 import BlobChunk

DIGEST = digest_of(b"")

pieces = st.builds(
    BlobPiece,
    digest=st.sampled_from([digest_of(b"a"), digest_of(b"b")]),
    offset_bytes=st.integers(0, 1 << 40),
    content=st.sampled_from([b"", b"x", b"y" * 400_000, b"z" * CHUNK_BYTES]),
    last=st.booleans(),
)


def pack(many: list[BlobPiece]) -> list[BlobChunk]:
    packer = Packer()
    messages = [packer.add(piece) for piece in many] + [packer.flush()]
    return [message for message in messages if message]


@given(st.lists(pieces, max_size=12))
def test_packed_pieces_come_out_as_they_went_in(many: list[BlobPiece]) -> None:
    messages = pack(many)

    assert [piece for message in messages for piece in unpack(message)] == many
    assert all(message.ByteSize() < 2 * CHUNK_BYTES for message in messages)


def test_small_pieces_share_a_message_and_empty_ones_do_not_share_one_without_end() -> None:
    small = BlobPiece(digest=DIGEST, offset_bytes=0, content=b"x" * 1000, last=True)
    empty = BlobPiece(digest=DIGEST, offset_bytes=0, content=b"", last=True)

    assert len(pack([small] * 900)) == 1
    assert len(pack([empty] * 2500)) == 3


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (BlobChunk(digest=DIGEST, content=bytes(CHUNK_BYTES + 1)), "the limit is"),
        (BlobChunk(digest=DIGEST, offset_bytes=-1), "begins at -1"),
        (BlobChunk(digest="../x"), "not a digest"),
        (BlobChunk(digest=DIGEST, more=[BlobChunk(digest="x")]), "not a digest"),
        (BlobChunk(digest=DIGEST, more=[BlobChunk(digest=DIGEST, more=[BlobChunk()])]), "inside a chunk"),
    ],
)
def test_malformed_message_is_refused(message: BlobChunk, problem: str) -> None:
    with pytest.raises(InvalidRequest, match=problem):
        unpack(message)
