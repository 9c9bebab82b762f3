from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from fleetest.client.scan import scan_tree, scan_workspace
from fleetest.client.tree_memory import TreeMemory
from fleetest.common.convert_workspace import manifest_entry, workspace_of
from fleetest.common.digest import digest_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_FILE_BYTES
from fleetest.common.regular_files import hash_file
from fleetest.common.workspace import Workspace, WorkspaceFile
from tests.support.full_disk import no_room_beyond

HOUR_NS = 3_600_000_000_000


def create(root: Path, path: str, content: str | bytes = "") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return create(tmp_path, "tree/test_a.py", "def test(): pass").parent


@pytest.fixture
def cache_directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def scan(root: Path, cache_directory: Path) -> Workspace:
    return scan_workspace(root, cache_directory=cache_directory)


def scan_in_an_hour(root: Path, cache_directory: Path) -> Workspace:
    """So late that the files are older than the scan, and their digests are kept."""
    return scan_workspace(root, cache_directory=cache_directory, clock_ns=lambda: time.time_ns() + HOUR_NS)


def paths(workspace: Workspace) -> list[str]:
    return [file.path for file in workspace.files]


def refusal(root: Path, cache_directory: Path) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        scan(root, cache_directory)
    return refused.value


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything: act as somebody who may not."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def forget_read_digests(root: Path, cache_directory: Path) -> None:
    """Put digests into the memory that no file has: they come back only from there."""
    memory = TreeMemory.load(cache_directory, root)
    memory.pack(
        {path: manifest_entry(WorkspaceFile(path=path, digest=digest_of(b"remembered"))) for path in memory.entries}
    )
    memory.digest = ""
    memory.save(cache_directory, root)


def test_files_come_with_digest_size_and_executability(root: Path, cache_directory: Path) -> None:
    create(root, "b/run.sh", "#!/bin/sh").chmod(0o755)
    (root / "a_link").symlink_to("b/run.sh")
    (root / "b" / "up").symlink_to("..")

    workspace = scan(root, cache_directory)

    assert workspace.files == (
        WorkspaceFile(path="a_link", symlink_target="b/run.sh"),
        WorkspaceFile(path="b/run.sh", digest=digest_of(b"#!/bin/sh"), size_bytes=9, executable=True),
        WorkspaceFile(path="b/up", symlink_target=".."),
        WorkspaceFile(path="test_a.py", digest=digest_of(b"def test(): pass"), size_bytes=16),
    )
    assert workspace.total_bytes == 25


def test_equal_trees_are_equal_workspaces(root: Path, cache_directory: Path, tmp_path: Path) -> None:
    for number in range(50):
        create(root, f"d{number % 7}/f{number}.py", f"x = {number % 3}")
        create(
            tmp_path / "other", f"d{49 - number - (49 - number) // 7 * 7}/f{49 - number}.py", f"x = {(49 - number) % 3}"
        )
    create(tmp_path / "other", "test_a.py", "def test(): pass")

    assert scan(root, cache_directory) == scan(tmp_path / "other", cache_directory)


def test_what_is_never_part_of_a_workspace_stays_out(root: Path, cache_directory: Path) -> None:
    for path in (".git/config", "sub/.git/config", "a/__pycache__/a.pyc", "env/pyvenv.cfg", "env/lib/x.py", "a/a.py"):
        create(root, path)
    create(root, "module/.git", "gitdir: elsewhere")

    assert paths(scan(root, cache_directory)) == ["a/a.py", "test_a.py"]


def test_ignored_directories_are_not_even_looked_into(root: Path, cache_directory: Path) -> None:
    create(root, ".gitignore", "node_modules\n")
    create(root, "node_modules/x.js")
    os.mkfifo(root / "node_modules" / "fifo")

    assert paths(scan(root, cache_directory)) == [".gitignore", "test_a.py"]


def test_everything_that_cannot_come_along_is_named_at_once(root: Path, cache_directory: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "outward").symlink_to("../elsewhere")
    with create(root, "huge.bin").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    create(root, os.fsdecode(b"latin\xe9"))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))

        error = refusal(root, cache_directory)

    assert "'fifo': is a FIFO" in error.message
    assert "'absolute': is a symbolic link that leaves the tree, to '/etc/passwd'" in error.message
    assert "'outward': is a symbolic link that leaves the tree" in error.message
    assert f"'huge.bin': has {MAX_FILE_BYTES + 1} bytes; the limit" in error.message
    assert "'socket': is a socket" in error.message
    assert "its name is not UTF-8" in error.message
    assert ".fleetestignore" in error.hint
    error.message.encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make device files")
def test_device_file_is_refused(root: Path, cache_directory: Path) -> None:
    os.mknod(root / "zero", 0o666 | 0o020000, os.makedev(1, 5))

    assert "'zero': is a character device" in refusal(root, cache_directory).message


def test_refused_files_can_be_left_out(root: Path, cache_directory: Path) -> None:
    os.mkfifo(root / "fifo")
    create(root, os.fsdecode(b"latin\xe9"))
    create(root, ".fleetestignore", "fifo\nlatin*\n")

    assert paths(scan(root, cache_directory)) == [".fleetestignore", "test_a.py"]


def test_what_cannot_be_read_is_named() -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        root.chmod(0o755)
        create(root, "secret").chmod(0)
        create(root, "closed/file").parent.chmod(0)
        create(root, "unlisted/file").parent.chmod(0o311)
        create(root, "fine")

        with ordinary_user(), pytest.raises(InvalidRequest) as refused:
            scan(root, root / "nowhere")
        (root / "closed").chmod(0o700)

    assert "'secret': cannot be read: Permission denied" in refused.value.message
    assert "'closed': cannot be read: Permission denied" in refused.value.message
    assert "'unlisted': cannot be read: Permission denied" in refused.value.message
    assert "'fine'" not in refused.value.message


def test_too_many_files_are_refused_and_the_largest_directory_named(
    root: Path, cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleetest.client.tree.MAX_WORKSPACE_FILES", 5)
    for number in range(10):
        create(root, f"data/{number}")

    error = refusal(root, cache_directory)

    assert "more than 5 files" in error.message
    assert "data (10)" in error.message


@pytest.fixture
def growing_root(tmp_path: Path) -> Path:
    """A tree of its own, for one file that grows."""
    root = tmp_path / "growing"
    root.mkdir()
    return root


def grow_while_read(monkeypatch: pytest.MonkeyPatch, file: Path, *, times: int) -> None:
    """Let `file`, the only one of its tree, grow each of the first times that it is read; no thread need be quick."""
    left = iter(range(times))

    def hash_and_grow(descriptor: int) -> tuple[str, int]:
        answer = hash_file(descriptor)
        if next(left, None) is not None:
            with file.open("ab") as writer:
                writer.write(b"x")
        return answer

    monkeypatch.setattr("fleetest.client.scan.hash_file", hash_and_grow)


def test_file_that_keeps_changing_is_refused(
    growing_root: Path, cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = create(growing_root, "growing.log")
    grow_while_read(monkeypatch, growing, times=sys.maxsize)

    error = refusal(growing_root, cache_directory)

    assert "'growing.log': changes while it is read" in error.message


def test_file_that_changed_once_while_it_was_read_is_read_again(
    growing_root: Path, cache_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = create(growing_root, "growing.log")
    grow_while_read(monkeypatch, growing, times=1)

    (file,) = scan(growing_root, cache_directory).files

    assert (file.digest, file.size_bytes) == (digest_of(b"x"), 1)


def test_absent_root_is_refused(tmp_path: Path) -> None:
    assert "no such directory" in refusal(tmp_path / "absent", tmp_path).message


def test_unchanged_files_are_not_read_again(root: Path, cache_directory: Path) -> None:
    scan_in_an_hour(root, cache_directory)
    forget_read_digests(root, cache_directory)

    workspace = scan_in_an_hour(root, cache_directory)

    assert [file.digest for file in workspace.files] == [digest_of(b"remembered")]


def test_cache_of_an_unchanged_tree_is_not_written_again(root: Path, cache_directory: Path) -> None:
    scan_in_an_hour(root, cache_directory)
    (written,) = cache_directory.iterdir()
    before = written.stat()

    scan_in_an_hour(root, cache_directory)

    assert written.stat().st_ino == before.st_ino


@pytest.mark.parametrize("content", ["def test(): fail", "longer than it was before"])
def test_changed_files_are_read_again(root: Path, cache_directory: Path, content: str) -> None:
    file = root / "test_a.py"
    scan_in_an_hour(root, cache_directory)
    forget_read_digests(root, cache_directory)
    before = file.stat()

    replacement = create(root, "new", content)
    os.utime(replacement, ns=(before.st_atime_ns, before.st_mtime_ns))
    replacement.rename(file)

    assert scan(root, cache_directory).files[0].digest == digest_of(content.encode())


def test_file_as_young_as_the_scan_is_read_again(root: Path, cache_directory: Path) -> None:
    scan(root, cache_directory)
    forget_read_digests(root, cache_directory)

    assert scan(root, cache_directory).files[0].digest == digest_of(b"def test(): pass")


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut short", "another version", "a bit"])
def test_damaged_cache_is_an_empty_one(root: Path, cache_directory: Path, damage: str) -> None:
    right = scan_in_an_hour(root, cache_directory)
    (cached,) = cache_directory.iterdir()
    content = cached.read_bytes()
    cached.write_bytes(
        {
            "empty": b"",
            "garbage": b"garbage",
            "cut short": content[:-1],
            "another version": content.replace(b"tree 3", b"tree 2"),
            "a bit": content[:-1] + bytes([content[-1] ^ 1]),
        }[damage]
    )

    assert scan_in_an_hour(root, cache_directory) == right
    assert cached.read_bytes() == content


def test_cache_that_cannot_be_written_does_no_harm(root: Path, tmp_path: Path) -> None:
    not_a_directory = create(tmp_path, "file")

    assert paths(scan_in_an_hour(root, not_a_directory)) == ["test_a.py"]


def test_cache_that_fails_while_it_is_written_leaves_nothing_behind(root: Path, cache_directory: Path) -> None:
    scan_in_an_hour(root, cache_directory)
    create(root, "more.py", "x")

    with no_room_beyond(10):
        scan_in_an_hour(root, cache_directory)

    assert len(list(cache_directory.iterdir())) == 1
    assert TreeMemory.load(cache_directory, root).listings[""].files == ["test_a.py"]


def test_remembered_scan_knows_that_nothing_has_changed(root: Path, cache_directory: Path) -> None:
    create(root, "b/module.py", "x")
    first = scan_tree(root, cache_directory=cache_directory)
    again = scan_tree(root, cache_directory=cache_directory)
    create(root, "b/module.py", "y")
    changed = scan_tree(root, cache_directory=cache_directory)

    assert [each.as_remembered for each in (first, again, changed)] == [False, True, False]
    assert again.digest == first.digest
    assert (again.count, changed.count) == (2, 2)
    assert workspace_of(changed.workspace().files).digest == changed.digest


CHANGES = {
    "a new file": lambda root: create(root, "src/new.py", "new"),
    "a new directory": lambda root: create(root, "src/deep/er/new.py", "new"),
    "a file that has gone": lambda root: (root / "src/a.py").unlink(),
    "a file that became a directory": lambda root: ((root / "src/a.py").unlink(), create(root, "src/a.py/b", "x")),
    "a directory that became a link": lambda root: (
        (root / "src").rename(root / "moved"),
        (root / "src").symlink_to("moved"),
    ),
    "a link with another target": lambda root: ((root / "link").unlink(), (root / "link").symlink_to("moved")),
    "an ignored directory that became a file": lambda root: (
        (root / "build/x").unlink(),
        (root / "build").rmdir(),
        create(root, "build", "x"),
    ),
    "a new ignore file": lambda root: create(root, "src/.gitignore", "a.py\n"),
    "a new ignore file above": lambda root: create(root, "src/.fleetestignore", "deep/\n"),
    "a new ignore file for what is below": lambda root: create(root, "src/.gitignore", "c.py\n"),
    "an ignore file that has gone": lambda root: (root / ".gitignore").unlink(),
    "other rules": lambda root: create(root, ".gitignore", "build/\nsrc/\n"),
    "a directory that became a virtual environment": lambda root: create(root, "src/deep/pyvenv.cfg"),
    "a virtual environment that is none any more": lambda root: (root / "env/pyvenv.cfg").unlink(),
    "another name": lambda root: (root / "src/deep/c.py").rename(root / "src/deep/d.py"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_what_is_remembered_of_a_tree_hides_no_change(root: Path, cache_directory: Path, change: Any) -> None:
    create(root, ".gitignore", "build/\n")
    for path in ("src/a.py", "src/deep/c.py", "build/x", "env/pyvenv.cfg", "env/bin/python"):
        create(root, path, path)
    (root / "link").symlink_to("src")
    scan_in_an_hour(root, cache_directory)

    change(root)

    assert scan_in_an_hour(root, cache_directory) == scan(root, cache_directory.with_name("new"))


def test_change_of_what_git_tracks_although_it_is_ignored_is_seen(root: Path, cache_directory: Path) -> None:
    create(root, ".gitignore", "*.log\n")
    create(root, "kept.log")
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "init", "-q"], check=True)
    before = paths(scan_in_an_hour(root, cache_directory))

    subprocess.run([*git, "add", "--force", "kept.log"], check=True)

    assert before == [".gitignore", "test_a.py"]
    assert paths(scan_in_an_hour(root, cache_directory)) == [".gitignore", "kept.log", "test_a.py"]


def test_each_root_has_its_own_cache(root: Path, cache_directory: Path, tmp_path: Path) -> None:
    other = create(tmp_path, "other/test_a.py", "other").parent

    scan_in_an_hour(root, cache_directory)
    scan_in_an_hour(other, cache_directory)

    assert len(list(cache_directory.iterdir())) == 2
