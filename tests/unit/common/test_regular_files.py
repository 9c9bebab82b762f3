from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from fleetest.common.regular_files import (
    CHUNK_BYTES,
    FileIdentity,
    NotRegular,
    hash_file,
    open_beneath,
    open_regular,
    read_chunks,
    write_all,
)


def test_chunks_are_full_but_the_last_also_from_a_pipe_that_gives_little() -> None:
    reading, writing = os.pipe()
    content = bytes(range(256)) * 100

    write_all(writing, content)
    os.close(writing)
    chunks = list(read_chunks(reading))
    os.close(reading)

    assert chunks == [content]


def test_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * (CHUNK_BYTES + 1))
    descriptor = open_regular(file)

    digest, size_bytes = hash_file(descriptor)
    os.close(descriptor)

    assert size_bytes == CHUNK_BYTES + 1
    assert digest == hashlib.sha256(b"x" * (CHUNK_BYTES + 1)).hexdigest()


def test_hashing_stops_beyond_the_largest_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetest.common.regular_files.MAX_FILE_BYTES", 2 * CHUNK_BYTES)
    endless = os.open("/dev/zero", os.O_RDONLY)

    _, size_bytes = hash_file(endless)
    os.close(endless)

    assert size_bytes == 3 * CHUNK_BYTES


def test_only_regular_files_are_opened_and_nothing_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/etc/passwd")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))

        for name in ("fifo", "link", "socket", ""):
            with pytest.raises(NotRegular):
                open_regular(tmp_path / name)
    with pytest.raises(NotRegular):
        open_regular("/dev/null")
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "absent")


def test_path_beneath_a_root_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("content")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "etc").symlink_to("/etc")

    descriptor = open_beneath(tmp_path, "a/b/file")
    content = os.read(descriptor, 100)
    os.close(descriptor)

    assert content == b"content"
    for path in ("link/b/file", "etc/passwd", "a/b/file/x"):
        with pytest.raises(NotRegular):
            open_beneath(tmp_path, path)


def test_identity_tells_another_content_and_when_it_changed_last(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    os.utime(file, ns=(0, 0))
    before = FileIdentity.of(file.stat())

    file.write_text("three")
    os.utime(file, ns=(0, 0))

    assert FileIdentity.of(file.stat()) != before
    assert before.changed_ns == before.ctime_ns > before.mtime_ns == 0
