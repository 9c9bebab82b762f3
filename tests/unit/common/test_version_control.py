from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleetest.common.git import run_git, tracked_although_ignored
from fleetest.common.version_control import VersionControl, version_control

DAY = datetime(2026, 3, 4, tzinfo=UTC)
SETUPTOOLS_SCM = "[tool.setuptools_scm]\n"


class Repository:
    """A repository in a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.root), "GIT_CONFIG_NOSYSTEM": "1"}
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{who}_NAME": "x", f"GIT_{who}_EMAIL": "x@example.org"}
        done = subprocess.run(["git", *arguments], cwd=self.root, env=environment, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def commit(self, **files: str) -> str:
        for name, content in files.items():
            (self.root / name.replace("_", ".")).write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def described(self) -> str:
        return version_control(self.root, {}, clock=lambda: DAY).described_version


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_commit_and_branch_are_those_that_are_checked_out(repository: Repository) -> None:
    commit = repository.commit(a_py="1")

    assert version_control(repository.root, {}) == VersionControl(commit=commit, branch="main")


@pytest.mark.parametrize("name", ["a.py", "new.py"])
def test_changed_and_new_files_make_the_tree_dirty(repository: Repository, name: str) -> None:
    repository.commit(a_py="1")

    (repository.root / name).write_text("2")

    assert version_control(repository.root, {}).dirty


def test_detached_commit_has_no_branch(repository: Repository) -> None:
    commit = repository.commit(a_py="1")
    repository.git("checkout", "--quiet", "--detach")

    assert version_control(repository.root, {}) == VersionControl(commit=commit)


def test_nothing_is_known_without_a_repository_or_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert version_control(tmp_path, {}) == VersionControl()

    Repository(tmp_path)
    assert version_control(tmp_path, {}) == VersionControl()

    monkeypatch.setenv("PATH", str(tmp_path))
    assert version_control(tmp_path, {}) == VersionControl()


def test_repository_around_a_tree_that_it_does_not_hold_says_nothing_of_it(repository: Repository) -> None:
    repository.commit(a_py="1")
    inside = repository.root / "scratch"
    inside.mkdir()
    (inside / "b.py").write_text("2")

    assert version_control(inside, {}) == VersionControl()


def test_git_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "git"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("fleetest.common.git._TIMEOUT_SECONDS", 0.1)

    assert run_git(tmp_path, "status") is None


def test_repository_of_a_hook_is_not_taken_for_the_one_asked_for(
    repository: Repository, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit(a_py="1")
    other = Repository(tmp_path_factory.mktemp("other"))
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))

    assert version_control(repository.root, {}).commit == commit


def test_force_added_files_are_told(repository: Repository) -> None:
    (repository.root / ".gitignore").write_text("*.bin\n")
    for name in ("kept.bin", "ignored.bin"):
        (repository.root / name).touch()
    repository.git("add", "--force", "kept.bin")
    repository.commit()

    assert tracked_although_ignored(repository.root) == {"kept.bin"}


@pytest.mark.parametrize(
    ("environment", "known"),
    [
        (
            {"GITHUB_ACTIONS": "true", "GITHUB_SHA": "abc", "GITHUB_REF": "refs/heads/topic/x"},
            VersionControl(commit="abc", branch="topic/x"),
        ),
        (
            {
                "GITHUB_ACTIONS": "true",
                "GITHUB_SHA": "abc",
                "GITHUB_REF": "refs/pull/17/merge",
                "GITHUB_HEAD_REF": "topic",
            },
            VersionControl(commit="abc", branch="topic", pull_request="17"),
        ),
        ({"GITHUB_ACTIONS": "true", "GITHUB_REF": "refs/tags/v1"}, VersionControl()),
        (
            {"GITLAB_CI": "true", "CI_COMMIT_SHA": "abc", "CI_COMMIT_BRANCH": "x"},
            VersionControl(commit="abc", branch="x"),
        ),
        (
            {"GITLAB_CI": "true", "CI_MERGE_REQUEST_IID": "3", "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "topic"},
            VersionControl(branch="topic", pull_request="3"),
        ),
        ({"CI_COMMIT_SHA": "abc", "GITHUB_SHA": "abc"}, VersionControl()),
    ],
)
def test_ci_system_tells_what_it_builds(tmp_path: Path, environment: dict[str, str], known: VersionControl) -> None:
    assert version_control(tmp_path, environment) == known


def test_git_knows_the_commit_and_the_ci_system_the_branch(repository: Repository) -> None:
    commit = repository.commit(a_py="1")
    repository.git("checkout", "--quiet", "--detach")
    environment = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SHA": "merge",
        "GITHUB_REF": "refs/pull/7/merge",
        "GITHUB_HEAD_REF": "x",
    }

    assert version_control(repository.root, environment) == VersionControl(commit=commit, branch="x", pull_request="7")


# What setuptools-scm 10.3.4 derives for each.
@pytest.mark.parametrize(
    ("tag", "at_tag", "after"),
    [
        ("v1.2.3", "1.2.3", "1.2.4.dev1"),
        ("1.2", "1.2", "1.3.dev1"),
        ("release-2.0-rc1", "2.0rc1", "2.0rc2.dev1"),
        ("V3.0.dev0", "3.0.dev0", "3.0.dev1"),
        ("4.0.post1", "4.0.post1", "4.0.post2.dev1"),
        ("v1.0-beta.2", "1.0b2", "1.0b3.dev1"),
        ("v1.0+build5", "1.0", "1.1.dev1"),
    ],
)
def test_version_is_derived_from_the_last_tag(repository: Repository, tag: str, at_tag: str, after: str) -> None:
    repository.commit(pyproject_toml=SETUPTOOLS_SCM)
    repository.git("tag", tag)
    described_at_tag = repository.described()
    commit = repository.commit(a_py="1")

    assert described_at_tag == at_tag
    assert repository.described() == f"{after}+g{commit[:9]}"


def test_version_of_a_changed_tree_carries_the_day(repository: Repository) -> None:
    commit = repository.commit(pyproject_toml=SETUPTOOLS_SCM, a_py="1")
    repository.git("tag", "v1.0")

    (repository.root / "a.py").write_text("2")

    assert repository.described() == f"1.1.dev0+g{commit[:9]}.d20260304"


def test_version_without_a_tag_counts_the_commits(repository: Repository) -> None:
    repository.commit(pyproject_toml=SETUPTOOLS_SCM)
    commit = repository.commit(a_py="1")

    assert repository.described() == f"0.1.dev2+g{commit[:9]}"


@pytest.mark.parametrize(
    "files",
    [
        {"pyproject_toml": '[tool.hatch.version]\nsource = "vcs"\nraw-options = {local_scheme = "no-local-version"}\n'},
        {"pyproject_toml": '[tool.setuptools_scm]\nlocal_scheme = "no-local-version"\n'},
    ],
)
def test_project_may_leave_the_local_part_away(repository: Repository, files: dict[str, str]) -> None:
    repository.commit(**files)
    repository.git("tag", "v1.0")
    repository.commit(a_py="1")

    assert repository.described() == "1.1.dev1"


@pytest.mark.parametrize(
    "files",
    [
        {"setup_py": "from setuptools import setup\nsetup(use_scm_version=True)\n"},
        {"setup_py": "setup(use_scm_version=True)\n", "pyproject_toml": "[project]\nname = 'x'\n"},
        {"setup_py": "setup(use_scm_version=True)\n", "pyproject_toml": "no [toml"},
    ],
)
def test_old_projects_say_it_in_setup_py(repository: Repository, files: dict[str, str]) -> None:
    repository.commit(**files)
    repository.git("tag", "v1.0")

    assert repository.described() == "1.0"


@pytest.mark.parametrize("files", [{}, {"pyproject_toml": "[tool]\nhatch = 3\n"}, {"setup_py": "setup()\n"}])
def test_project_that_derives_no_version_has_none(repository: Repository, files: dict[str, str]) -> None:
    repository.commit(**files)
    repository.git("tag", "v1.0")

    assert not repository.described()


def test_tag_that_is_no_version_gives_none(repository: Repository) -> None:
    repository.commit(pyproject_toml=SETUPTOOLS_SCM)
    repository.git("tag", "nightly-2026x-final")

    assert not repository.described()


def test_version_of_a_part_of_a_repository_is_not_derived(repository: Repository) -> None:
    part = repository.root / "part"
    part.mkdir()
    (part / "pyproject.toml").write_text(SETUPTOOLS_SCM)
    repository.commit()
    repository.git("tag", "v1.0")

    assert not version_control(part, {}).described_version
