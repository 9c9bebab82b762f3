from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fleetest.worker.directories import open_directory, open_or_replace_directory, remove


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def directory_of_an_ordinary_user() -> Iterator[tuple[Path, int]]:
    """Root needs no permission: act as somebody who does."""
    with TemporaryDirectory() as name:
        if os.geteuid() == 0:
            os.chown(name, 65534, 65534)
            os.seteuid(65534)
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield Path(name), descriptor
        finally:
            os.close(descriptor)
            os.seteuid(os.getuid())


def test_everything_below_a_directory_is_removed_and_nothing_beside_it(tmp_path: Path, parent: int) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "a" / "fifo")

    remove(parent, "a")

    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "outside"]


def test_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path, parent: int) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "link").symlink_to("outside")

    remove(parent, "link")

    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_directory_deeper_than_any_path_is_removed(tmp_path: Path, parent: int) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    remove(parent, "deep")

    assert list(tmp_path.iterdir()) == []


def test_directory_without_permissions_is_removed() -> None:
    with directory_of_an_ordinary_user() as (root, parent):
        (root / "a" / "b" / "c").mkdir(parents=True)
        (root / "a" / "b" / "file").touch()
        (root / "a" / "b" / "c").chmod(0o500)
        (root / "a" / "b").chmod(0)
        (root / "a").chmod(0o555)

        remove(parent, "a")

        assert list(root.iterdir()) == []


def test_directory_without_permissions_is_opened_for_work() -> None:
    with directory_of_an_ordinary_user() as (root, parent):
        (root / "a").mkdir(mode=0)

        os.close(open_directory(parent, "a"))

        assert (root / "a").stat().st_mode & 0o7777 == 0o755


def test_link_in_place_of_a_directory_is_not_followed(tmp_path: Path, parent: int) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "a").symlink_to("outside")

    with pytest.raises(NotADirectoryError):
        open_directory(parent, "a")
    os.close(open_or_replace_directory(parent, "a"))

    assert (tmp_path / "a").is_dir()
    assert not (tmp_path / "a").is_symlink()
