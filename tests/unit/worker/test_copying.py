from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from fleetest.worker.copying import copy_content
from tests.support.full_disk import no_room_beyond

CONTENT = random.Random(1).randbytes(3_000_000)


def test_content_is_copied_from_where_the_source_stands(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)

    with (tmp_path / "source").open("rb", buffering=0) as source, (tmp_path / "target").open("wb") as target:
        source.seek(10)
        copied_bytes = copy_content(source.fileno(), target.fileno())

    assert copied_bytes == len(CONTENT) - 10
    assert (tmp_path / "target").read_bytes() == CONTENT[10:]


def test_what_the_kernel_cannot_copy_by_itself_is_read_and_written(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.write(writing, CONTENT[:50_000])
    os.close(writing)

    with (tmp_path / "target").open("wb") as target:
        copied_bytes = copy_content(reading, target.fileno())
    os.close(reading)

    assert copied_bytes == 50_000
    assert (tmp_path / "target").read_bytes() == CONTENT[:50_000]


def test_full_disk_is_not_taken_for_a_kernel_that_cannot(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)

    with (
        (tmp_path / "source").open("rb") as source,
        (tmp_path / "target").open("wb") as target,
        no_room_beyond(1000),
        pytest.raises(OSError, match="File too large"),
    ):
        copy_content(source.fileno(), target.fileno())
