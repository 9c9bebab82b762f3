from __future__ import annotations

import json
import os
import py_compile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleetest.common.convert_workspace import workspace_of
from fleetest.common.digest import digest_of
from fleetest.common.errors import CapacityExceeded, DependencyUnavailable, InvalidRequest, NotFound
from fleetest.common.results import Artifact
from fleetest.common.workspace import Workspace, WorkspaceFile
from fleetest.worker.blob_cache import BlobCache
from fleetest.worker.ownership import Owner
from fleetest.worker.workspaces import WorkspaceCache
from tests.support.full_disk import no_room_beyond
from tests.support.overlay import overlay

MIB = 1 << 20

# A path to content, to a link's target ("-> x"), or to what a program contains ("#!...", executable).
Tree = dict[str, str]

PROJECT: Tree = {
    "pyproject.toml": "[project]",
    "src/app/__init__.py": "",
    "src/app/core.py": "VALUE = 1\n",
    "src/app/data.txt": "data",
    "run.sh": "#!/bin/sh",
    "current": "-> src/app",
    "tests/test_app.py": "def test(): pass\n",
}


class MemoryBlobs:
    """The `Blobs` port over what is in memory."""

    def __init__(self, cache: BlobCache) -> None:
        self.contents: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.after_fetch: Callable[[], None] = lambda: None
        self._cache = cache

    async def fetch(self, digests: Sequence[str]) -> None:
        for digest in self._cache.missing(digests):
            if digest not in self.contents:
                raise NotFound(f"no such blob: {digest}")
            with self._cache.create(digest) as writer:
                writer.write(self.contents[digest])
                writer.publish()
            self.fetched.append(digest)
        self.after_fetch()

    async def store(self, root: Path, paths: Sequence[Path]) -> tuple[Sequence[Artifact], Sequence[str]]:
        raise NotImplementedError


class Bench:
    """A workspace cache, its parts, and a target."""

    def __init__(self, root: Path) -> None:
        self.cache = BlobCache(root / "cache", max_bytes=100 * MIB)
        self.blobs = MemoryBlobs(self.cache)
        self.state_directory = root / "state"
        self.workspaces = WorkspaceCache(self.blobs, self.cache, state_directory=self.state_directory)
        self.target = root / "slot" / "source"

    def workspace(self, tree: Tree) -> Workspace:
        files = []
        for path, content in tree.items():
            if content.startswith("-> "):
                files.append(WorkspaceFile(path=path, symlink_target=content.removeprefix("-> ")))
                continue
            encoded = content.encode()
            self.blobs.contents[digest_of(encoded)] = encoded
            files.append(
                WorkspaceFile(
                    path=path,
                    digest=digest_of(encoded),
                    size_bytes=len(encoded),
                    executable=content.startswith("#!"),
                )
            )
        workspace = workspace_of(files)
        self.blobs.contents[workspace.digest] = workspace.manifest
        return workspace

    async def synchronise(self, tree: Tree) -> None:
        await self.workspaces.synchronise(self.workspace(tree).digest, self.target)

    def found(self) -> Tree:
        """What the target holds, directories that are empty included."""
        tree = {}
        for directory, names, files in os.walk(self.target):
            for name in (*files, *(name for name in names if (Path(directory) / name).is_symlink())):
                path = Path(directory, name)
                content = f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
                tree[str(path.relative_to(self.target))] = content
            if not names and not files:
                tree[str(Path(directory).relative_to(self.target)) + "/"] = ""
        return tree

    def inodes(self) -> dict[str, int]:
        return {path: (self.target / path).lstat().st_ino for path in self.found()}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@contextmanager
def left_by(path: Path) -> Iterator[Path]:
    """Keeps a place outside of the target, and makes sure that nothing came or went there."""
    path.mkdir()
    (path / "precious").write_text("precious")
    yield path
    assert [(each.name, each.read_text()) for each in path.iterdir()] == [("precious", "precious")]


async def test_target_holds_exactly_the_workspace(bench: Bench) -> None:
    await bench.synchronise(PROJECT)

    assert bench.found() == PROJECT
    assert (bench.target / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (bench.target / "pyproject.toml").stat().st_mode & 0o7777 == 0o644


async def test_empty_digest_is_an_empty_directory(bench: Bench) -> None:
    await bench.synchronise(PROJECT)

    await bench.workspaces.synchronise("", bench.target)

    assert bench.found() == {"./": ""}


async def test_files_are_copies_that_nobody_shares(bench: Bench) -> None:
    await bench.synchronise(PROJECT)

    file = bench.target / "src/app/data.txt"
    file.write_text("written by a test")

    assert file.stat().st_nlink == 1
    descriptor = bench.cache.open(digest_of(b"data"))
    assert descriptor is not None
    assert os.read(descriptor, 100) == b"data"
    os.close(descriptor)


async def test_what_is_right_already_stays_as_it_is(bench: Bench) -> None:
    await bench.synchronise(PROJECT)
    before = bench.inodes()
    bench.blobs.fetched.clear()

    await bench.synchronise(PROJECT)
    changed = PROJECT | {"src/app/core.py": "VALUE = 2\n", "new/file": "new"}
    await bench.synchronise(changed)

    assert bench.found() == changed
    after = bench.inodes()
    assert {path for path in before if after[path] != before[path]} == {"src/app/core.py"}
    assert len(bench.blobs.fetched) == 3  # the manifest, the changed file and the new one


def spoil_in_place(target: Path) -> None:
    (target / "src/app/core.py").write_text("VALUE = 3\n")


def spoil_keeping_size_and_time(target: Path) -> None:
    file = target / "src/app/core.py"
    before = file.stat()
    file.write_text("VALUE = 9\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def spoil_permissions(target: Path) -> None:
    (target / "run.sh").chmod(0o600)
    (target / "tests").chmod(0o555)
    (target / "src").chmod(0)


def spoil_by_adding(target: Path) -> None:
    (target / "left").mkdir()
    (target / "left/deep").mkdir()
    (target / "left/deep/file").touch()
    (target / "src/app/.hidden").touch()
    (target / "empty").mkdir()
    os.mkfifo(target / "fifo")


def spoil_by_removing(target: Path) -> None:
    (target / "src/app/core.py").unlink()
    (target / "tests/test_app.py").unlink()
    (target / "tests").rmdir()


def spoil_by_exchanging(target: Path) -> None:
    (target / "run.sh").unlink()
    (target / "run.sh").mkdir()
    (target / "run.sh/inside").touch()
    (target / "tests/test_app.py").unlink()
    (target / "tests").rmdir()
    (target / "tests").touch()
    (target / "current").unlink()
    (target / "current").symlink_to("/etc")
    (target / "pyproject.toml").rename(target / "moved.toml")


def spoil_by_hard_links(target: Path) -> None:
    os.link(target / "src/app/core.py", target.parent / "linked")
    (target.parent / "linked").write_text("VALUE = 4\n")


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_in_place,
        spoil_keeping_size_and_time,
        spoil_permissions,
        spoil_by_adding,
        spoil_by_removing,
        spoil_by_exchanging,
        spoil_by_hard_links,
    ],
)
async def test_what_a_test_spoilt_is_put_right(bench: Bench, spoil: Callable[[Path], None]) -> None:
    await bench.synchronise(PROJECT)
    spoil(bench.target)

    await bench.synchronise(PROJECT)

    assert bench.found() == PROJECT
    assert (bench.target / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (bench.target / "src").stat().st_mode & 0o7777 == 0o755


async def test_change_in_the_instant_after_is_seen(bench: Bench) -> None:
    for _ in range(20):
        await bench.synchronise(PROJECT)
        (bench.target / "src/app/core.py").write_text("VALUE = 7\n")
        await bench.synchronise(PROJECT)

        assert (bench.target / "src/app/core.py").read_text() == PROJECT["src/app/core.py"]


async def test_link_to_elsewhere_in_place_of_a_directory_is_not_written_through(bench: Bench, tmp_path: Path) -> None:
    await bench.synchronise(PROJECT)
    with left_by(tmp_path / "outside") as outside:
        (bench.target / "tests" / "test_app.py").unlink()
        (bench.target / "tests").rmdir()
        (bench.target / "tests").symlink_to(outside)
        (bench.target / "src").rename(bench.target / "kept")
        (bench.target / "src").symlink_to(outside)
        (bench.target / "src-too").symlink_to(outside)

        await bench.synchronise(PROJECT | {"src/precious": "of the workspace"})

    assert bench.found() == PROJECT | {"src/precious": "of the workspace"}


async def test_target_that_became_a_link_is_made_a_directory_again(bench: Bench, tmp_path: Path) -> None:
    await bench.synchronise(PROJECT)
    bench.target.rename(tmp_path / "moved")
    with left_by(tmp_path / "outside") as outside:
        bench.target.symlink_to(outside)

        await bench.synchronise(PROJECT)

    assert not bench.target.is_symlink()
    assert bench.found() == PROJECT


async def test_manifest_that_leaves_the_target_is_refused(bench: Bench) -> None:
    from fleetest.v1.types_pb2 import WorkspaceManifest

    message = WorkspaceManifest()
    message.files.add(path="../escaped", digest=digest_of(b"x"), size_bytes=1)
    manifest = message.SerializeToString()
    bench.blobs.contents |= {digest_of(manifest): manifest, digest_of(b"x"): b"x"}

    with pytest.raises(InvalidRequest, match="escaped"):
        await bench.workspaces.synchronise(digest_of(manifest), bench.target)

    assert not bench.target.parent.exists()


async def test_bytecode_of_unchanged_sources_alone_is_kept(bench: Bench) -> None:
    await bench.synchronise(PROJECT)
    package = bench.target / "src/app"
    for name in ("core", "__init__"):
        py_compile.compile(str(package / f"{name}.py"), doraise=True)
    cache = package / "__pycache__"
    (tag,) = {path.name.split(".", 1)[1].removesuffix(".pyc") for path in cache.iterdir()}
    for name in (
        f"core.{tag}.opt-1.pyc", f"core.{tag}-pytest-9.0.2.pyc", f"__init__.{tag}-pytest-8.4.0.pyc",
        f"gone.{tag}.pyc", f"core.{tag}.pyc.140", "core.pyc", "notes.txt", f"__init__.{tag}.nbi",
    ):  # fmt: skip
        (cache / name).touch()
    (cache / "directory.cpython-311.pyc").mkdir()
    (cache / f"__init__.{tag}.opt-2.pyc").symlink_to("/etc/passwd")
    (bench.target / "tests" / "__pycache__").symlink_to("/etc")

    await bench.synchronise(PROJECT | {"src/app/core.py": "VALUE = 2\n"})

    kept = {path.name for path in cache.iterdir()}
    assert kept == {f"__init__.{tag}.pyc", f"__init__.{tag}-pytest-8.4.0.pyc"}
    assert not (bench.target / "tests" / "__pycache__").is_symlink()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"garbage",
        b'{"version": 9, "files": {}}',
        b'{"version": 1, "files": {"run.sh": ["x"]}}',
        b'{"version": 1, "files": {"run.sh": 3}}',
        None,
    ],
)
async def test_lost_or_damaged_state_costs_no_more_than_copies(bench: Bench, damage: bytes | None) -> None:
    await bench.synchronise(PROJECT)
    spoil_in_place(bench.target)
    (state,) = bench.state_directory.iterdir()
    if damage is None:
        state.unlink()
    else:
        state.write_bytes(damage)

    await bench.synchronise(PROJECT)

    assert bench.found() == PROJECT


async def test_crash_in_the_middle_is_put_right_by_the_next_call(bench: Bench) -> None:
    await bench.synchronise(PROJECT)
    (state,) = bench.state_directory.iterdir()
    before = state.read_bytes()
    await bench.synchronise({path: f"{content} of another version" for path, content in PROJECT.items()})

    state.write_bytes(before)
    (bench.target / "src/app/core.py").write_text("half a fi")
    (bench.target / ".removed-0011223344556677").mkdir()
    await bench.synchronise(PROJECT)

    assert bench.found() == PROJECT


async def test_blob_evicted_between_fetch_and_copy_is_fetched_again(bench: Bench) -> None:
    evictions = [digest_of(b"data"), digest_of(b"[project]")]

    def evict_one() -> None:
        if evictions and bench.blobs.fetched[-1] != bench.workspace(PROJECT).digest:
            bench.cache.discard(evictions.pop())

    bench.blobs.after_fetch = evict_one
    await bench.synchronise(PROJECT)

    assert evictions == []
    assert bench.found() == PROJECT


async def test_blobs_that_never_stay_are_given_up(bench: Bench) -> None:
    bench.blobs.after_fetch = lambda: bench.cache.discard(digest_of(b"data"))

    with pytest.raises(DependencyUnavailable, match="blob cache is too small"):
        await bench.synchronise(PROJECT)

    another = {**PROJECT, "another.py": ""}  # whose manifest has not been read yet
    bench.blobs.after_fetch = lambda: bench.cache.discard(bench.workspace(another).digest)
    with pytest.raises(DependencyUnavailable, match="1 blobs"):
        await bench.synchronise(another)


async def test_blob_that_lost_its_content_in_the_cache_is_fetched_again(bench: Bench, tmp_path: Path) -> None:
    await bench.synchronise(PROJECT)
    blob = tmp_path / "cache" / "blobs" / digest_of(b"data")
    blob.chmod(0o644)
    blob.write_bytes(b"")
    (bench.target / "src/app/data.txt").unlink()

    await bench.synchronise(PROJECT)

    assert bench.found() == PROJECT


async def test_unknown_workspace_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.workspaces.synchronise(digest_of(b"unknown"), bench.target)


async def test_manifest_that_is_too_large_is_not_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = bench.workspace(PROJECT)
    monkeypatch.setattr("fleetest.worker.workspaces.MAX_MANIFEST_BYTES", 10)

    with pytest.raises(InvalidRequest, match="too large"):
        await bench.workspaces.synchronise(workspace.digest, bench.target)


async def test_full_disk_is_said_and_made_up_for(bench: Bench) -> None:
    large = PROJECT | {"large": "x" * MIB}
    workspace = bench.workspace(large)
    await bench.blobs.fetch([digest_of(content.encode()) for content in large.values() if content[:3] != "-> "])

    with no_room_beyond(100_000), pytest.raises(CapacityExceeded, match="disk is full"):
        await bench.workspaces.synchronise(workspace.digest, bench.target)
    await bench.synchronise(large)

    assert bench.found() == large


async def test_target_that_cannot_be_made_is_said(bench: Bench) -> None:
    bench.target.parent.parent.mkdir(exist_ok=True)
    bench.target.parent.touch()

    with pytest.raises(DependencyUnavailable, match="workspace directory"):
        await bench.synchronise(PROJECT)


async def test_many_files_come_in_batches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetest.worker.workspaces._BATCH_FILES", 7)
    monkeypatch.setattr("fleetest.worker.workspaces._BATCH_BYTES", 50)
    tree = {f"d{number % 5}/e{number % 3}/{number}": "x" * number for number in range(60)}

    await bench.synchronise(tree)

    assert bench.found() == tree


async def test_state_lies_outside_of_the_target_and_names_no_more_than_is_there(bench: Bench) -> None:
    await bench.synchronise(PROJECT)
    await bench.synchronise({"only.py": ""})

    (state,) = bench.state_directory.iterdir()

    assert list(json.loads(state.read_text())["files"]) == ["only.py"]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away and mounts overlays: run as root")


@needs_root
async def test_files_directories_and_links_are_given_to_their_owner(bench: Bench) -> None:
    digest = bench.workspace(PROJECT).digest

    await bench.workspaces.synchronise(digest, bench.target, owner=Owner(uid=1234, gid=4321))
    (bench.target / "src").chmod(0o700)
    await bench.workspaces.synchronise(digest, bench.target, owner=Owner(uid=1234, gid=4321))

    owners = {(status.st_uid, status.st_gid) for status in map(os.lstat, [bench.target, *bench.target.rglob("*")])}
    assert owners == {(1234, 4321)}
    assert bench.found() == PROJECT


@needs_root
async def test_overlay_is_restored_without_copying_what_nobody_changed(bench: Bench, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    digest = bench.workspace(PROJECT).digest
    await bench.workspaces.synchronise(digest, layer)
    with overlay(layer, tmp_path / "over") as bench.target:
        (bench.target / "src/app/core.py").write_text("VALUE = 2\n")
        (bench.target / "run.sh").unlink()
        (bench.target / "new/deep").mkdir(parents=True)
        before = bench.inodes()

        await bench.workspaces.synchronise(digest, bench.target, shown_by=layer)

        assert bench.found() == PROJECT
        assert (layer / "src/app/core.py").read_text() == PROJECT["src/app/core.py"]
        changed = {path for path, inode in bench.inodes().items() if before.get(path) != inode}
        assert changed == {"src/app/core.py", "run.sh"}


@needs_root
async def test_overlay_takes_another_workspace_than_its_layers(bench: Bench, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    await bench.workspaces.synchronise(bench.workspace(PROJECT).digest, layer)
    other: Tree = {"src": "a file now", "tests/test_app.py": PROJECT["tests/test_app.py"], "more/deep/x": "1"}
    with overlay(layer, tmp_path / "over") as bench.target:
        (bench.target / "src/app/left/deep").mkdir(parents=True)

        await bench.workspaces.synchronise(bench.workspace(other).digest, bench.target, shown_by=layer)

        assert bench.found() == other


async def test_nothing_is_remembered_of_a_forgotten_target(bench: Bench) -> None:
    await bench.synchronise(PROJECT)

    await bench.workspaces.forget(bench.target)

    assert list(bench.state_directory.iterdir()) == []
