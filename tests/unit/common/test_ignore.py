from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetest.common.ignore import IgnoreRules
from fleetest.common.ignore_pattern import parse_pattern


def git(root: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(root),
        **{f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    done = subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        create(root, name, content)


def create(root: Path, path: str, content: str = "") -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


def kept(root: Path, rules: IgnoreRules | None = None, prefix: str = "") -> set[str]:
    """The files below `root` that come into a workspace, found the way a scan does."""
    rules = rules or IgnoreRules.for_root(root)
    found = set()
    for entry in os.scandir(root):
        if entry.name == ".git":
            continue
        is_directory = entry.is_dir(follow_symlinks=False)
        ignored = rules.ignores(entry.name, is_directory=is_directory)
        if is_directory and (not ignored or rules.opens(entry.name)):
            found |= kept(Path(entry), rules.enter(entry.name, Path(entry)), f"{prefix}{entry.name}/")
        elif not is_directory and not ignored:
            found.add(prefix + entry.name)
    return found


def kept_by_git(root: Path) -> set[str]:
    return set(filter(None, git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")))


PATTERNS = [
    "a", "a/", "/a", "*", "*.py", "a*", "?", "[ab]", "[!a]", "[^b]", "[]a]", "[a-c].py", "a/b", "a/*", "/*", "b/**",
    "**/b", "a/**/b", "**", "a**", "*/b", "**/b/**", "\\a", "\\#x", "#x", "\\!x", "a ", "a\\ ", "[[:alpha:]]", "[a", "a\\",
    "!a", "!b/", "!*.py", "!/a/b", "!a/**", "!*", "/", "", "[z-a]", "b?c", "[\\]]", "x/", "a\r", "[[:digit:]-]",
]  # fmt: skip
PATHS = [
    "a",
    "b/a",
    "a/b",
    "a/b/a.py",
    "a/a/b",
    "b/b/a",
    "x.py",
    "a.py",
    "b.py",
    "#x",
    "!x",
    "a ",
    "bxc",
    "]",
    "x/a.py",
    "x/-",
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    root_lines=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=5),
    nested_lines=st.lists(st.sampled_from(PATTERNS), max_size=3),
    excluded_lines=st.lists(st.sampled_from(PATTERNS), max_size=2),
    paths=st.sets(st.sampled_from(PATHS), min_size=1),
)
def test_git_ignores_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    root_lines: list[str],
    nested_lines: list[str],
    excluded_lines: list[str],
    paths: set[str],
) -> None:
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "--quiet")
    for path in paths:
        if not any(other.startswith(f"{path}/") for other in paths) and path.partition("/")[0] not in paths - {path}:
            create(root, path)
    create(root, ".gitignore", "\n".join(root_lines))
    create(root, "x/.gitignore", "\n".join(nested_lines))
    create(root, ".git/info/exclude", "\n".join(excluded_lines))

    assert kept(root) == kept_by_git(root)


def test_rules_hold_without_a_repository(tmp_path: Path) -> None:
    create(tmp_path, ".gitignore", "\ufeff*.log\nbuild/\n")
    for path in ("a.py", "a.log", "build/x", "src/build/x", "src/b.log", "src/b.py"):
        create(tmp_path, path)

    assert kept(tmp_path) == {".gitignore", "a.py", "src/b.py"}


def test_fleetestignore_has_the_last_word(tmp_path: Path) -> None:
    create(tmp_path, ".gitignore", "*.so\ngenerated.py\nnode_modules/\n")
    create(tmp_path, ".fleetestignore", "docs/\n!*.so\n")
    create(tmp_path, "src/.fleetestignore", "!generated.py\nb.so\n")
    for path in ("a.so", "docs/a", "src/generated.py", "generated.py", "src/a.so", "src/b.so", "node_modules/a.so"):
        create(tmp_path, path)

    assert kept(tmp_path) >= {"a.so", "src/generated.py", "src/a.so"}
    assert not kept(tmp_path) & {"docs/a", "generated.py", "src/b.so", "node_modules/a.so"}


@pytest.mark.parametrize(
    "pattern", ["!build/generated/", "!/build/generated", "!build/*.d/", "!build/**/keep/", "!build/**"]
)
def test_fleetestignore_brings_back_what_lies_in_an_ignored_directory(tmp_path: Path, pattern: str) -> None:
    create(tmp_path, ".gitignore", "build/\n")
    create(tmp_path, ".fleetestignore", f"{pattern}\n")
    for path in ("build/generated/keep/a", "build/x.d/keep/a"):
        create(tmp_path, path)
    create(tmp_path, "build/other")

    brought_back = kept(tmp_path) - {".gitignore", ".fleetestignore"}

    assert brought_back
    assert ("build/other" in brought_back) == (pattern == "!build/**")


def test_ignored_directory_is_opened_only_for_a_pattern_that_names_the_way(tmp_path: Path) -> None:
    create(tmp_path, ".gitignore", "node_modules/\n")
    create(tmp_path, ".fleetestignore", "!*.js\n!**/lib/\n!package/x\n")

    rules = IgnoreRules.for_root(tmp_path)

    assert not rules.opens("node_modules")
    assert rules.opens("package")


def test_directory_brought_back_keeps_its_own_rules_for_what_is_in_it(tmp_path: Path) -> None:
    create(tmp_path, ".gitignore", "vendor/\n*.log\n")
    create(tmp_path, ".fleetestignore", "!vendor/\n")
    for path in ("vendor/a.py", "vendor/a.log", "vendor/deep/b.py"):
        create(tmp_path, path)

    assert kept(tmp_path) - {".gitignore", ".fleetestignore"} == {"vendor/a.py", "vendor/deep/b.py"}


def test_rules_of_the_repository_around_apply(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    create(tmp_path, ".gitignore", "*.log\n/services/api/data\n")
    create(tmp_path, ".git/info/exclude", "secret\n")
    for path in ("a.log", "data/x", "secret", "a.py"):
        create(tmp_path, f"services/api/{path}")

    assert kept(tmp_path / "services" / "api") == {"a.py"}


def test_tree_that_the_repository_around_ignores_is_a_tree_of_its_own(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    create(tmp_path, ".gitignore", "scratch/\n*.py\n")
    create(tmp_path, "scratch/project/a.py")
    create(tmp_path, "scratch/project/a.log")
    create(tmp_path, "scratch/project/.gitignore", "*.log\n")

    assert kept(tmp_path / "scratch" / "project") == {".gitignore", "a.py"}


def test_excluded_files_of_a_linked_worktree_are_those_of_its_repository(tmp_path: Path) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    main.mkdir()
    git(main, "init", "--quiet")
    git(main, "commit", "--quiet", "--allow-empty", "--message", "first")
    git(main, "worktree", "add", "--quiet", str(linked))
    create(main, ".git/info/exclude", "*.log\n")
    create(linked, "a.log")
    create(linked, "a.py")

    assert kept(linked) == {"a.py"}


def test_tracked_files_come_along_although_they_are_ignored(tmp_path: Path) -> None:
    create(tmp_path, ".gitignore", "*.bin\nbuild/\n")
    for path in ("a.bin", "b.bin", "build/kept/a", "build/other", "data/c.bin"):
        create(tmp_path, path)

    rules = IgnoreRules.for_root(tmp_path, tracked=["a.bin", "build/kept/a"])

    assert kept(tmp_path, rules) == {".gitignore", "a.bin", "build/kept/a"}


def test_ignore_file_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").mkdir()
    create(tmp_path, ".gitignore/a")
    create(tmp_path, "b")

    assert kept(tmp_path) == {".gitignore/a", "b"}


@pytest.mark.parametrize("line", ["", "   ", "# comment", "!", "/", "a\\", "[a", "[a-", "[\\", "[[:alpha:"])
def test_line_that_matches_nothing_is_no_pattern(line: str) -> None:
    assert parse_pattern(line) is None
