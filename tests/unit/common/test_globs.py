"""Globs for paths mean what they mean for files."""

from __future__ import annotations

import pytest

from fleetest.common.globs import glob_means

PATHS = ("state.json", ".coverage.a-1", "out/a.png", "out/deep/b.png", "out/deep/c.txt")


@pytest.mark.parametrize(
    "glob",
    ["state.json", "*", "*.json", ".coverage.*", "out", "out/", "./out", "out/*", "out/*.png", "out/**", "**", "**/*",
     "**/*.png", "out/**/*.png", "out/**/deep", "*/deep/?.png", "*/deep/[bc].*", "out/**/deep/**", "none", "out/a.png/b"],
)  # fmt: skip
def test_a_glob_means_the_files_that_a_task_would_keep_by_it(glob, tmp_path):
    for path in PATHS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = list(tmp_path.glob(glob))
    kept = {path for each in found for path in (each, *each.rglob("*")) if path.is_file()}

    assert {path for path in PATHS if glob_means(glob, path)} == {str(path.relative_to(tmp_path)) for path in kept}


def test_a_glob_of_many_directories_takes_no_time():
    assert not glob_means("**/" * 1000 + "x", "a/" * 1000 + "b")
