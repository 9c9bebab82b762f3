import os
from pathlib import Path
from typing import Any

from fleetest.common.errors import DependencyUnavailable
from fleetest.worker.artifacts import collect_artifacts, matching_files
from tests.tools.local_worker import DirectoryBlobs, RecordingReporter


def test_globs_find_files_and_whole_directories(tmp_path: Path) -> None:
    for name in ("a.txt", "b.log", "out/x.txt", "out/deep/y.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    paths, problems = matching_files(tmp_path, ["*.txt", "out", "out/**/*.txt", "nothing"], 10)

    assert [str(path.relative_to(tmp_path)) for path in paths] == ["a.txt", "out/deep/y.txt", "out/x.txt"]
    assert problems == []


def test_nothing_outside_of_the_workspace_is_answered(tmp_path: Path) -> None:
    root = tmp_path / "w"
    root.mkdir()
    (tmp_path / "secret").write_text("s")
    (root / "large").write_text("x" * 20)
    (root / "link").symlink_to("../secret")
    (root / "directory").symlink_to("..")
    (root / "inner").symlink_to("empty")
    (root / "empty").mkdir()
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "pipe")

    paths, problems = matching_files(root, ["*", "../*", "/etc/*", "directory/*", ""], 10)

    assert paths == []
    told = "\n".join(problems)
    for problem in (
        "../*: leaves the workspace",
        "/etc/*: leaves the workspace",
        "link: is a link that leaves the workspace",
        "directory: is a link that leaves the workspace",
        "directory/secret: is a link that leaves the workspace",
        "inner: is a link to a directory",
        "dangling: cannot be read",
        "loop: cannot be read",
        "pipe: is not a regular file",
        "large: is larger than 0 MiB",
    ):
        assert problem in told


async def test_blob_store_that_fails_is_a_problem_of_the_artifacts_only(tmp_path: Path) -> None:
    class Broken(DirectoryBlobs):
        async def store(self, root: Path, paths: Any) -> Any:
            raise DependencyUnavailable("the master does not answer")

    (tmp_path / "a").touch()
    reporter = RecordingReporter()

    await collect_artifacts(Broken(tmp_path), tmp_path, ["a"], reporter)

    assert reporter.problems == ["artifacts could not be stored: the master does not answer"]
