"""What has passed and has not changed is not run again, if its task asks for that; and what is wrong about it is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.acceptance.conftest import Cluster

SUITE = """
    version: 1
    name: s
    project: {project}
    defaults:
      env: {{WITNESS: {witness}, PYTEST_DISABLE_PLUGIN_AUTOLOAD: 1}}
    tasks:
      cached:
        args: tests
        cache: {{sample: {sample}}}
      plain:
        args: tests/test_one.py
"""
TEST = """
    import os
    from pathlib import Path
    import {module}

    def test():
        with open(os.environ["WITNESS"], "a") as witness:
            witness.write(os.environ["FLEETEST_TASK"] + "/{module} ")
        assert {module}.right()
"""
MODULE = "from pathlib import Path\ndef right(): return not Path({wrong!r}).exists()\n"


class Project:
    """Two test files, each with a module of its own; `ran` says which ran since it was asked last."""

    def __init__(self, cluster: Cluster, make: Callable[..., Path], directory: Path) -> None:
        self.cluster = cluster
        self.witness, self.wrong = directory / "witness", directory / "wrong"
        self.name = directory.name
        self._make = make
        self.root = Path()
        module = MODULE.format(wrong=str(self.wrong))
        self.write(**{"one.py": module, "two.py": module})
        self.write(**{f"tests/test_{each}.py": TEST.format(module=each) for each in ("one", "two")})
        self.write(**{"pytest.ini": "[pytest]\npythonpath = .\n"})

    def write(self, **files: str) -> None:
        self.root = self._make(files)

    def run(self, *options: str, sample: str = "0%", expect: int = 0) -> str:
        """Standard output and error of a run of both tasks."""
        suite = SUITE.format(project=self.name, witness=self.witness, sample=sample)
        self.write(**{"fleetest.yaml": suite})
        done = self.cluster.fleetest("run", *options, cwd=self.root)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def ran(self) -> set[str]:
        found = set(self.witness.read_text().split())
        self.witness.write_text("")
        return found


@pytest.fixture
def suite(cluster: Cluster, project: Callable[..., Path], tmp_path: Path) -> Project:
    return Project(cluster, project, tmp_path)


def test_only_what_depends_on_a_change_runs_again_and_only_where_that_is_asked_for(suite: Project) -> None:
    junit = suite.witness.with_name("junit.xml")
    clear = ("cache", "clear", "--project", suite.name, "--task", "cached", "--file", "tests/test_one.py")
    suite.run()
    at_first = suite.ran
    summary = suite.run("--junit", str(junit))
    unchanged = suite.ran
    shown = suite.cluster.fleetest("show", "--cases", "--project", suite.name).stdout
    suite.write(**{"two.py": (suite.root / "two.py").read_text() + "# changed\n"})
    suite.run()
    changed = suite.ran
    cleared = suite.cluster.fleetest(*clear)
    suite.run()

    assert at_first == {"cached/one", "cached/two", "plain/one"}
    assert unchanged == {"plain/one"}
    assert changed == {"cached/two", "plain/one"}
    assert (cleared.returncode, suite.ran) == (0, {"cached/one", "plain/one"}), cleared.stderr
    assert "3 passed, 2 cached" in summary
    assert shown.count("cached: run ") == 2
    names = [each.get("name") for each in ET.parse(junit).iter("property")]
    assert names == ["cached_from", "cached_at"] * 2


def test_wrong_hit_is_found_by_the_sample_reported_and_not_used_again(suite: Project) -> None:
    suite.run()
    suite.wrong.touch()  # what the results depend on, and no fingerprint knows of

    noticed = suite.run(sample="100%", expect=1)
    suite.wrong.unlink()
    assert suite.ran
    suite.run()

    assert "CACHE tests/test_one.py::test  cached  failed, though it was cached as passed in run " in noticed
    assert "wrong in the cache" in noticed
    assert suite.ran == {"cached/one", "cached/two", "plain/one"}
