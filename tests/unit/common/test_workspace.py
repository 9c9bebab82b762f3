from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetest.common.convert_workspace import parse_manifest, workspace_of
from fleetest.common.digest import digest_of
from fleetest.common.errors import InvalidRequest
from fleetest.common.limits import MAX_FILE_BYTES
from fleetest.common.workspace import Problem, WorkspaceFile, link_problem, refuse
from fleetest.v1.types_pb2 import WorkspaceManifest

DIGEST = digest_of(b"")


def file(path: str, **changes: Any) -> WorkspaceFile:
    return WorkspaceFile(path=path, **{"digest": DIGEST, "size_bytes": 0, **changes})


def link(path: str, target: str) -> WorkspaceFile:
    return WorkspaceFile(path=path, symlink_target=target)


def manifest_of(*files: WorkspaceFile) -> bytes:
    """A manifest as anybody could send it."""
    message = WorkspaceManifest()
    for each in files:
        message.files.add(
            path=each.path,
            digest=each.digest,
            size_bytes=each.size_bytes,
            executable=each.executable,
            symlink_target=each.symlink_target,
        )
    return message.SerializeToString()


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)


@given(st.sets(names, max_size=8), st.randoms())
def test_manifest_tells_the_workspace_again_whatever_the_order_of_its_files(paths: set[str], random: Any) -> None:
    files = [file(f"dir/{path}", size_bytes=len(path), executable=len(path) % 2 == 0) for path in paths]
    shuffled = random.sample(files, len(files))

    workspace = workspace_of(files)

    assert workspace_of(shuffled) == workspace
    assert parse_manifest(workspace.manifest) == workspace
    assert workspace.digest == digest_of(workspace.manifest)
    assert workspace.total_bytes == sum(len(path) for path in paths)


def test_digest_of_a_workspace_never_changes_between_versions() -> None:
    workspace = workspace_of([file("a.py", size_bytes=3, executable=True), link("b", "a.py")])

    assert workspace.digest == "2580fe73fbf20468aaa68f7d012bb92ff57fbd98570b562dfa74bbe748210127"


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "./a",
        "a//b",
        "a/",
        "a\0b",
        "x" * 256,
        "a/" * 100 + "b",
        "ab/" * 90 + "é" * 1000,
    ],
)
def test_path_that_could_leave_the_directory_or_break_it_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_manifest(manifest_of(file(path)))


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([file("a"), file("a")], "'a': is there twice"),
        ([file("b"), file("a")], "'a': is out of order after 'b'"),
        ([file("a"), file("a.b"), file("a/b/c")], "'a/b/c': lies below 'a'"),
        ([link("a", "b"), file("a/c")], "'a/c': lies below 'a'"),
        ([file("a", digest="../../x")], "no proper digest"),
        ([file("a", digest="")], "no proper digest"),
        ([file("a", size_bytes=-1)], "size of -1"),
        ([file("a", size_bytes=MAX_FILE_BYTES + 1)], "the limit is"),
        ([file("a", symlink_target="b")], "both a symbolic link and a file"),
    ],
)
def test_manifest_that_cannot_be_laid_out_is_refused(files: list[WorkspaceFile], problem: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be used") as refused:
        parse_manifest(manifest_of(*files))

    assert problem in refused.value.message


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse_manifest(manifest_of(file("../a"), file("b", digest="x"), link("c", "/etc")))

    assert all(path in refused.value.message for path in ("'../a'", "'b'", "'c'"))


def test_of_very_many_problems_the_first_are_named() -> None:
    refused = refuse([Problem(str(number), "is bad") for number in range(60)], hint="Go away.")

    assert "'49': is bad" in refused.message
    assert "'50'" not in refused.message
    assert "and 10 more" in refused.message


@pytest.mark.parametrize(
    ("links", "leaves"),
    [
        ({"a": "b"}, False),
        ({"d/a": "../b"}, False),
        ({"a": "."}, False),
        ({"a": "b/../../b"}, True),
        ({"a": ".."}, True),
        ({"a": "/etc/passwd"}, True),
        ({"d/a": "../../b"}, True),
        ({"d/e/up": "../..", "out": "d/e/up/.."}, True),
        ({"d/e/up": "../..", "in": "d/e/up/x"}, False),
        ({"a": "b/..", "b": "d/e/f"}, False),
        ({"a": "b", "b": "a"}, False),
    ],
)
def test_link_is_followed_as_the_kernel_would(links: dict[str, str], *, leaves: bool) -> None:
    problems = [reason for path in links if (reason := link_problem(path, links))]

    assert bool(problems) == leaves
    assert all("leaves the tree" in reason for reason in problems)


@pytest.mark.parametrize("target", ["x" * 1025, "a\nb", "a\udc80"])
def test_link_with_an_unspeakable_target_is_refused(target: str) -> None:
    assert "printable" in link_problem("a", {"a": target})


def test_what_is_no_manifest_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a workspace manifest"):
        parse_manifest(b"\xff\xff garbage")


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [file("a"), file("b")]
    monkeypatch.setattr("fleetest.common.convert_workspace.MAX_MANIFEST_BYTES", 10)

    with pytest.raises(InvalidRequest, match="limit is 10"):
        workspace_of(files)
    with pytest.raises(InvalidRequest, match="limit is 10"):
        parse_manifest(manifest_of(*files))

    monkeypatch.setattr("fleetest.common.workspace.MAX_WORKSPACE_FILES", 1)
    with pytest.raises(InvalidRequest, match="2 files; the limit is 1"):
        workspace_of(files)


def test_executability_is_part_of_a_workspace() -> None:
    plain = file("a")

    assert workspace_of([plain]).digest != workspace_of([replace(plain, executable=True)]).digest
