"""What a run leaves: reports, artifacts, output; and what it must not leave: secrets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from xml.etree import ElementTree as ET

import pytest

from fleetest.common.states import RunState
from tests.acceptance.conftest import write_files

SECRET = "correct-horse-battery-staple"

SUITE = """
    version: 1
    name: records
    tasks:
      pytest: {args: test_kinds.py}
      page:
        run: mkdir -p out && echo '<html>' > out/page.html && echo built
        artifacts: [out/*.html]
      imports: {run: cat junit.xml > report.xml, reports: [report.xml]}
      secretive:
        secrets: [PASSWORD]
        run: |
          test ${#PASSWORD} = 28 || exit 9
          echo "password: $PASSWORD" | tee out.txt
          printf '<testsuite><testcase name="told"><failure message="%s"/></testcase></testsuite>' "$PASSWORD" > r.xml
        reports: [r.xml]
    """

FILES = {
    "fleetest.yaml": SUITE,
    "junit.xml": "<testsuite><testcase name='kept' classname='k'/><testcase name='left'><skipped/></testcase></testsuite>",
    "test_kinds.py": """
        import os, pytest

        def test_passes(): pass
        def test_fails(): assert "left" == "right", os.environ.get("PASSWORD")
        @pytest.mark.skip(reason="not today")
        def test_skipped(): pass
        @pytest.mark.xfail(reason="known")
        def test_xfails(): assert False
        """,
}


@pytest.fixture(scope="module")
def records(shared_cluster, tmp_path_factory):
    """The directory of a followed run's reports and artifacts, and what the run said."""
    root = write_files(tmp_path_factory.mktemp("records"), FILES)
    kept = tmp_path_factory.mktemp("kept")
    options = ("--junit", str(kept / "j.xml"), "--json", str(kept / "c.json"), "--artifacts", str(kept / "artifacts"))
    done = shared_cluster.fleetest("run", "--secret", "PASSWORD", *options, cwd=root, PASSWORD=SECRET)
    assert done.returncode == 1, done.stderr
    return kept, done.stdout + done.stderr


def test_junit_report_holds_every_case(records):
    suites = ET.parse(records[0] / "j.xml").getroot()

    cases = {case.get("name"): [child.tag for child in case] for case in suites.iter("testcase")}
    assert suites.tag == "testsuites"
    assert len(cases) == 8
    assert sum(tags[:1] == ["failure"] for tags in cases.values()) == 2
    assert sum(tags[:1] == ["skipped"] for tags in cases.values()) == 3


def test_ctrf_report_holds_every_case(records):
    report = json.loads((records[0] / "c.json").read_text())

    summary = report["results"]["summary"]
    assert report["reportFormat"] == "CTRF"
    assert (summary["tests"], summary["passed"], summary["failed"]) == (8, 3, 2)
    assert len(report["results"]["tests"]) == 8


def test_artifacts_are_saved_by_task_and_path(records):
    assert (records[0] / "artifacts" / "page" / "out" / "page.html").read_text() == "<html>\n"


def test_artifacts_can_be_fetched_later(shared_cluster, records, tmp_path):
    saved = shared_cluster.json("artifacts", "--save", str(tmp_path))

    assert [artifact["artifact"]["path"] for artifact in saved] == ["out/page.html"]
    assert (tmp_path / "page" / "out" / "page.html").read_text() == "<html>\n"


def test_output_of_a_task_can_be_read_later(shared_cluster, records):
    assert shared_cluster.fleetest("logs", "latest", "page").stdout == "built\n"


def test_secret_reaches_only_the_task_that_names_it(shared_cluster, records):
    results = shared_cluster.results("latest")

    assert "None" in results["test_kinds.py::test_fails"].message
    assert shared_cluster.fleetest("logs", "latest", "secretive").stdout == "password: ***\n"


def test_secret_is_in_nothing_that_is_shown(shared_cluster, records):
    shown = shared_cluster.fleetest("show", "latest", "--cases", "-v", "--output", "json")
    files = "".join(path.read_text() for path in records[0].iterdir() if path.is_file())

    assert "***" in shown.stdout
    assert SECRET not in shown.stdout + files + records[1]


def test_secret_is_in_no_file_of_the_cluster(shared_cluster, records):
    holding = [
        str(path.relative_to(shared_cluster.directory))
        for path in shared_cluster.directory.rglob("*")
        if path.is_file() and not path.name.startswith("appendonly.aof") and SECRET.encode() in path.read_bytes()
    ]

    # Redis forgets it with the run, its append-only file when that is next rewritten.
    # What the test itself wrote into its copy of the workspace is its own; nothing of ours may hold the value.
    assert [path for path in holding if not path.endswith(("/src/out.txt", "/src/r.xml"))] == []


def test_missing_secret_is_asked_for_before_anything_runs(shared_cluster, project):
    done = shared_cluster.fleetest("run", cwd=project(FILES))

    assert done.returncode == 2
    assert "needs secrets that were not given: PASSWORD" in done.stderr
    assert "--secret PASSWORD" in done.stderr


def test_command_line_without_a_file_becomes_a_suite_with_the_active_interpreter(cluster, project, tmp_path):
    own = tmp_path / "active"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(own)], check=True)
    site = next(own.glob("lib/*/site-packages"))
    (site / "inherited.pth").write_text(next(path for path in sys.path if path.endswith("site-packages")))
    content = """
        import sys, pytest

        @pytest.mark.slow
        def test_slow(): assert False
        def test_interpreter(): assert sys.prefix == open("prefix").read()
        """
    root = project({"tests/test_active.py": content, "prefix": str(own), "pytest.ini": "[pytest]\nmarkers = slow"})

    done = cluster.fleetest("run", "--", "pytest", "tests", "-k", "not slow", cwd=root, VIRTUAL_ENV=str(own))

    assert done.returncode == 0, done.stderr
    assert "  version: 1\n" in done.stderr
    assert "      args: [tests, -k, not slow]\n" in done.stderr
    assert f"      python: {own}/bin/python\n" in done.stderr
    assert "PASSED  1 case" in done.stderr


CONFTEST = """
    import os, pathlib, pytest

    @pytest.fixture(scope="session")
    def mark():
        def write(what):
            with open(pathlib.Path(os.environ["MARKS"]) / "tally", "a") as tally:
                tally.write(f"{what} {os.getpid()}\\n")

        return write

    @pytest.fixture(scope="session")
    def server(mark):
        mark("server")

    @pytest.fixture(scope="module")
    def table(server, mark, request):
        mark(request.module.__name__)
    """

CASES = """
    import pytest

    @pytest.mark.parametrize("number", range(40))
    def test_number(table, mark, number):
        mark("case")
    """


def test_wide_fixtures_are_made_once_in_each_session(cluster, project, tmp_path):
    """Of a task whose number of shards is fixed: cases of others may be handed back, and run where they were not meant to."""
    suite = f"""
        version: 1
        name: fixtures
        tasks: {{pytest: {{args: ".", shards: 2, env: {{MARKS: {tmp_path}}}}}}}
        """
    root = project({"conftest.py": CONFTEST, "test_a.py": CASES, "test_b.py": CASES, "fleetest.yaml": suite})

    run = cluster.ended(cluster.submit(cwd=root))

    made = Counter(tuple(line.split()) for line in (tmp_path / "tally").read_text().splitlines())
    sessions = {pid for _, pid in made}
    assert run.state is RunState.PASSED
    assert len(sessions) <= 2
    assert sum(made["case", pid] for pid in sessions) == 80
    assert {made[what, pid] for what in ("server", "test_a", "test_b") for pid in sessions} <= {0, 1}
