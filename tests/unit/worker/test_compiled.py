"""What was compiled once is found by its content, and whatever is not as it should be is compiled as ever."""

from __future__ import annotations

import importlib.util
import marshal
import os
import traceback
import warnings
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType

import pytest
from _pytest.assertion import rewrite

from fleetest.common.states import Verdict
from fleetest.worker.executors.compiled_modules import CompiledModules
from fleetest.worker.resident import compiled as module
from fleetest.worker.resident import stored
from tests.tools.local_worker import RecordingReporter, make_spec, opened, run_cases, suite


@pytest.fixture
def store(tmp_path: Path) -> stored.Store:
    (tmp_path / "store").mkdir()
    return stored.Store(str(tmp_path / "store"))


@pytest.fixture
def importing(tmp_path: Path, store: stored.Store, monkeypatch: pytest.MonkeyPatch) -> module.Compiled:
    """In its place in importlib, which writes no `.pyc`."""
    for owner, name in ((SourceFileLoader, "source_to_code"), (rewrite, "_rewrite_test")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # to be undone
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    made = module.Compiled(stored, str(tmp_path / "store"))
    made.put_into_importlib()
    return made


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "store").iterdir())


def compiled(path: Path, content: str) -> CodeType:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    code = SourceFileLoader("m", str(path)).get_code("m")
    assert code is not None
    return code


def value_of_x(code: CodeType) -> object:
    names: dict[str, object] = {}
    exec(code, names)
    return names["x"]


def stored_as(code: CodeType) -> bytes:
    return b"o" + marshal.dumps(code)


def test_a_store_has_what_is_whole_and_nothing_else(tmp_path: Path, store: stored.Store) -> None:
    store.put("a", b"content")
    [path] = kept(tmp_path)
    whole = path.read_bytes()

    found = [store.get("a"), store.get("b")]
    for broken in (b"", whole[:10], whole[:-1], whole + b"x", b"x" + whole[1:]):
        path.write_bytes(broken)
        found.append(store.get("a"))
    store.put("a", b"again")

    assert found == [b"content", *[None] * 6]
    assert store.get("a") == b"again"
    assert kept(tmp_path) == [path]


@pytest.mark.parametrize("place", ["gone", "file"])
def test_a_store_that_cannot_be_written_keeps_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    store = stored.Store(str(tmp_path / place))

    store.put("a", b"content")

    assert store.get("a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, store: stored.Store) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    descriptor = os.open(full, os.O_WRONLY)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stored, "_write", lambda _, content: os.write(descriptor, content))
            store.put("a", b"content")
    finally:
        os.close(descriptor)

    assert kept(tmp_path) == []


@pytest.mark.usefixtures("importing")
def test_equal_sources_are_compiled_once_wherever_they_lie(tmp_path: Path, store: stored.Store) -> None:
    first = compiled(tmp_path / "a" / "m.py", "def f(): pass\nx = 1\n")
    [entry] = kept(tmp_path)
    store.put(entry.name, stored_as(compile("def f(): pass\nx = 'found'\n", "elsewhere.py", "exec")))

    second = compiled(tmp_path / "b" / "m.py", "def f(): pass\nx = 1\n")
    third = compiled(tmp_path / "b" / "m.py", "def f(): pass\nx = 2\n")

    assert [value_of_x(code) for code in (first, second, third)] == [1, "found", 2]
    paths = {code.co_filename for code in (second, *second.co_consts) if isinstance(code, CodeType)}
    assert paths == {str(tmp_path / "b" / "m.py")}


@pytest.mark.usefixtures("importing")
@pytest.mark.parametrize("content", [b"o", b"ono code", b"o" + marshal.dumps(1)])
def test_an_entry_that_holds_no_code_is_replaced(tmp_path: Path, store: stored.Store, content: bytes) -> None:
    compiled(tmp_path / "m.py", "x = 1\n")
    [entry] = kept(tmp_path)
    store.put(entry.name, content)

    code = compiled(tmp_path / "m.py", "x = 1\n")

    assert value_of_x(code) == 1
    assert store.get(entry.name) != content


@pytest.mark.usefixtures("importing")
def test_a_module_that_warns_does_so_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            compiled(tmp_path / "m.py", "x = '' is 1\n")
        assert [str(each.category.__name__) for each in heard] == ["SyntaxWarning"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = list(warnings.filters)
        compiled(tmp_path / "m.py", "x = '' is 1\n")
        assert list(warnings.filters) == before
    with pytest.raises(SyntaxError, match="is"):
        compiled(tmp_path / "m.py", "x = '' is 1\n")

    assert kept(tmp_path) == []


@pytest.mark.usefixtures("importing")
def test_nothing_shows_in_the_traceback_of_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "erroneous_module.py").write_text("x =\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(SyntaxError) as raised:
        import erroneous_module  # type: ignore[import-not-found]  # noqa: F401

    assert [frame.filename for frame in traceback.extract_tb(raised.value.__traceback__)] == [__file__]


def test_what_others_have_a_hand_in_is_not_kept(
    tmp_path: Path, importing: module.Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing.put_into_pytest(rewrite)
    monkeypatch.setattr(rewrite, "rewrite_asserts", lambda *_: None)

    compiled(tmp_path / "m.py", "x = 1\n")

    assert kept(tmp_path) == []


@pytest.mark.parametrize("other", [None, object(), importlib.util])
def test_another_pytest_is_left_as_it_is(importing: module.Compiled, other: object) -> None:
    importing.put_into_pytest(other)

    assert not hasattr(other, "_rewrite_test")


async def test_sessions_take_rewritten_tests_from_earlier_ones_and_look_at_content_alone(tmp_path: Path) -> None:
    workspace = suite(
        tmp_path / "w",
        helper="def answer(): return 6 * 7\n",
        test_a="""
            from helper import answer
            def test_fails(): assert answer() == 41
            def test_passes(): assert answer() == 42
        """,
    )

    first = await results(workspace, tmp_path)
    entries = {path: path.stat() for path in (tmp_path / "compiled").glob("*/*")}
    second = await results(workspace, tmp_path)
    found = {path: path.stat() for path in (tmp_path / "compiled").glob("*/*")}
    for path, old, new in ((workspace / "test_a.py", "41", "42"), (workspace / "helper.py", "7", "8")):
        times = path.stat()
        path.write_text(path.read_text().replace(old, new))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    third = await results(workspace, tmp_path)

    assert [result.details for result in first.results] == [result.details for result in second.results]
    assert "assert 42 == 41" in first.named("test_fails").message
    assert "test_a.py:3: AssertionError" in second.named("test_fails").details
    assert len(entries) > 2, "the modules of the session itself are kept, too"
    assert [(path, status.st_ino) for path, status in found.items()] == [
        (path, status.st_ino) for path, status in entries.items()
    ]
    assert "assert 48 == 42" in third.named("test_passes").message


async def results(workspace: Path, tmp_path: Path) -> RecordingReporter:
    spec = make_spec(workspace, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    async with opened(spec, compiled=tmp_path / "compiled") as session:
        ended, reporter = await run_cases(session, spec, ["test_a.py::test_fails", "test_a.py::test_passes"])
    assert ended.verdict is Verdict.COMPLETED, ended.reason
    return reporter


def test_what_was_used_least_recently_is_evicted_first(tmp_path: Path) -> None:
    modules = CompiledModules(tmp_path / "root", max_bytes=4000)
    directories = [modules.open(project) for project in ("a", "b")]
    for number in range(10):
        directory = directories[number % 2]
        assert directory is not None
        path = directory / str(number)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (number, number))
    (directory / "nested" / "deeper").mkdir(parents=True)

    modules.evict()

    assert sorted(path.name for path in (tmp_path / "root").glob("*/*")) == ["7", "8", "9"]
    assert directories[0] != directories[1]


def test_without_a_place_or_a_bound_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert CompiledModules(tmp_path / "root", max_bytes=0).open("a") is None
    assert CompiledModules(tmp_path / "file", max_bytes=1).open("a") is None
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
