from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleetest.client.cli.finding import default_project, find_suite
from fleetest.client.cli.known_suites import KnownSuites, installed_rules
from fleetest.client.cli.selecting import select_tasks
from fleetest.client.cli.upload_progress import UploadProgress, sent_text
from fleetest.common.errors import InvalidRequest, WrongState
from fleetest.common.secrets import read_secrets
from fleetest.common.suite import load_suite
from tests.unit.client.scripted_master import RUN_ID, failing_run

SUITE = """\
version: 1
name: ci
project: shop
tasks:
  lint:
    run: "true"
  # the middle one
  unit:
    args: tests
    needs: [lint]
    matrix:
      python: [3.10, "3.11"]
  e2e:
    run: "true"
    secrets: [TOKEN]
environments: {staging: {}}
"""


@pytest.fixture
def suite_file(fleetest):
    Path("fleetest.yaml").write_text(SUITE)


def test_run_uploads_submits_and_follows(fleetest, master, suite_file):
    Path("test_a.py").write_text("def test_a(): pass\n")

    shown = fleetest(
        "run",
        *("--label", "ci=nightly", "--secret", "TOKEN", "--fail-fast", "--supersede", "--executor", "process"),
        *("--env", "staging", "--set", "resources.cpu=2"),
        *("--idempotency-key", "key"),
        environment={"TOKEN": "s3cret"},
    )

    assert shown.code == 0
    assert shown.out == ""
    assert "2 files, 2 of them new" in shown.err
    assert "run older is being cancelled in favour of this one\n" in shown.err
    (request,) = master.requests("StartRuns")
    assert not master.requests("WatchRun")
    assert (request.suite, request.suite_source, request.project) == (SUITE, "fleetest.yaml", "shop")
    assert (request.environment, dict(request.environment_settings)) == ("staging", {"resources.cpu": "2"})
    assert (dict(request.secrets), dict(request.labels)) == ({"TOKEN": "s3cret"}, {"ci": "nightly"})
    assert (request.executor, request.fail_fast, request.idempotency_key) == ("process", True, "key")
    assert request.workspace_digest in master.blobs
    assert request.user


def test_unchanged_files_are_not_asked_for_again(fleetest, master, suite_file):
    first = fleetest("run", "--detach")
    master.calls.clear()

    again = fleetest("run", "--detach")

    assert (first.code, again.code) == (0, 0)
    assert "1 file, none of them new" in again.err
    assert not master.requests("FindMissingBlobs")


def test_master_that_lost_the_files_is_given_them_again(fleetest, master, suite_file):
    fleetest("run", "--detach")
    master.blobs.clear()
    master.faults.append(WrongState("the workspace has not been uploaded"))

    again = fleetest("run", "--detach")

    assert again.code == 0
    assert "1 file, 1 of them new" in again.err
    assert master.requests("SubmitRun")[-1].workspace_digest in master.blobs


def test_run_exits_with_1_when_tests_failed_and_still_writes_reports(fleetest, master, suite_file):
    master.log = failing_run()

    shown = fleetest("run", "--junit", "out.xml")

    assert shown.code == 1
    assert Path("out.xml").exists()


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_submitted(fleetest, master, suite_file):
    shown = fleetest("run", "--junit", "fleetest.yaml/x")

    assert shown.code == 2
    assert "could not be written" in shown.err
    assert not master.calls


def test_run_without_a_file_infers_the_suite_and_prints_it(fleetest, master):
    shown = fleetest("run", "--", "pytest", "tests", "-k", "not slow", environment={"VIRTUAL_ENV": sys.prefix})

    assert shown.code == 0
    (request,) = master.requests("StartRuns")
    assert f"  args: [tests, -k, not slow]\n    python: {sys.prefix}/bin/python\n" in request.suite
    assert "no suite file; running this:\n  version: 1\n  name: shop\n" in shown.err
    assert request.project == "shop"


def test_detached_run_prints_its_id_alone(fleetest, master, suite_file):
    shown = fleetest("run", "--detach", "--project", "other")

    assert (shown.code, shown.out) == (0, f"{RUN_ID}\n")
    assert master.requests("SubmitRun")[0].project == "other"
    assert not master.requests("WatchRun")


def test_dry_run_prints_tasks_and_asks_nobody(fleetest, master, suite_file):
    table = fleetest("run", "--dry-run")
    document = json.loads(fleetest("run", "--dry-run", "-o", "json", "--task", "unit").out)

    assert "unit[python=3.10]" in table.out
    assert [task["name"] for task in document["tasks"]] == ["lint", "unit[python=3.10]", "unit[python=3.11]"]
    assert document["tasks"][1]["timeouts"]["total_seconds"] == 1800
    assert not master.calls


def test_every_problem_of_a_suite_is_told_and_nothing_submitted(fleetest, master):
    Path("mine.yaml").write_text("version: 1\nname: x\ntasks:\n  a:\n    runn: x\n  b:\n    run: y\n    needs: [c]\n")

    shown = fleetest("run", "mine.yaml")

    assert shown.code == 2
    assert "mine.yaml:5:5" in shown.err
    assert "mine.yaml:8:" in shown.err
    assert "problems in the suite; nothing was submitted" in shown.err
    assert not master.calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("absent.yaml",), "cannot be read"),
        (("fleetest.yaml", "--", "pytest"), "a suite file and a command are given"),
        (("fleetest.yaml", "-f", "fleetest.yaml"), "given twice"),
        (("--secret", "TOKEN=abc"), "would show the secret"),
        (("--secret", "UNSET_TOKEN"), "no such environment variable"),
        (("--label", "nothing"), "key=value"),
        (("--task", "nothing"), "the suite has no task 'nothing'\nIts tasks are lint, unit, e2e."),
    ],
)
def test_wrong_input_is_named_with_exit_code_2(fleetest, master, suite_file, arguments, words):
    shown = fleetest("run", *arguments)

    assert shown.code == 2
    assert words in shown.err
    assert "abc" not in shown.err
    assert not master.calls


def test_a_named_suite_brings_its_own_directory(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ci.yaml").write_text("\ufeffversion: 1")

    found = find_suite(tmp_path / "sub" / "ci.yaml", [], directory=tmp_path, environment={})

    assert (found.text, found.source, found.root) == ("version: 1", "ci.yaml", tmp_path / "sub")


def test_the_second_spelling_of_the_file_is_found_too(tmp_path):
    (tmp_path / "fleetest.yml").write_text("version: 1")

    assert find_suite(None, [], directory=tmp_path, environment={}).source == "fleetest.yml"
    assert find_suite(None, ["pytest"], directory=tmp_path, environment={}).inferred


def test_the_interpreter_falls_back_to_the_own_one(tmp_path):
    found = find_suite(None, ["pytest"], directory=tmp_path, environment={"VIRTUAL_ENV": "/nowhere"})

    assert sys.executable in found.text


@pytest.mark.parametrize(("content", "words"), [(b"\xff\xfe", "not UTF-8"), (b"#" * (1 << 20) + b"#", "larger than")])
def test_files_that_are_no_suites_are_refused(tmp_path, content, words):
    (tmp_path / "s.yaml").write_bytes(content)

    with pytest.raises(InvalidRequest, match=words):
        find_suite(tmp_path / "s.yaml", [], directory=tmp_path, environment={})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@host:team/shop.git", "shop"),
        ("https://host/team/shop/", "shop"),
        ("host:shop", "shop"),
        ("", "here"),
    ],
)
def test_a_project_is_named_after_its_repository_or_directory(tmp_path, url, name):
    assert default_project(tmp_path / "here", lambda _directory: url) == name


def test_the_remote_is_asked_of_git(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", "git@x:y/toys.git"], check=True)

    assert default_project(tmp_path) == "toys"


def test_secrets_come_from_the_environment_by_name():
    assert read_secrets(["A"], {"A": "x", "B": "y"}) == {"A": "x"}
    with pytest.raises(InvalidRequest, match="not the name"):
        read_secrets(["not-a-name"], {"not-a-name": "x"})


def test_selected_tasks_keep_their_lines_and_bring_what_they_need():
    text = select_tasks(SUITE, load_suite(SUITE, source="s"), ["unit"])

    assert text.splitlines()[7:12] == SUITE.splitlines()[7:12]
    assert len(text.splitlines()) == len(SUITE.splitlines())
    names = [task.name for task in load_suite(text, source="s").tasks]
    assert names == ["lint", "unit[python=3.10]", "unit[python=3.11]"]


def test_selecting_a_part_of_a_matrix_or_of_braces_is_refused():
    flow = "version: 1\nname: x\ntasks: {a: {run: x}, b: {run: y}}\n"

    with pytest.raises(InvalidRequest) as caught:
        select_tasks(SUITE, load_suite(SUITE, source="s"), ["unit[python=3.10]"])
    with pytest.raises(InvalidRequest, match="lines of its own"):
        select_tasks(flow, load_suite(flow, source="s"), ["a"])

    assert caught.value.hint == "Name the whole of it: --task unit"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_upload_progress_writes_over_itself_and_leaves_no_trace():
    now = iter([0.0, 0.1, 0.3, 0.4])
    stream = Terminal()

    with UploadProgress(stream, lambda: next(now)) as progress:
        progress.announce("looking for changed files")
        progress.show(1, 2048)
        progress.show(1024, 2048)
        progress.show(2048, 2048)

    written = stream.getvalue()
    assert written.startswith("\rlooking for changed files ")
    assert written.count("uploading: ") == 1
    assert "uploading: 1.0 KiB of 2.0 KiB" in written
    assert written.endswith(" \r")


def test_upload_progress_is_silent_elsewhere():
    stream = io.StringIO()
    with UploadProgress(stream, iter([0.0, 9.0]).__next__) as progress:
        progress.announce("looking for changed files")
        progress.show(1, 2)

    assert stream.getvalue() == ""
    assert sent_text(2, 2048) == "2 of them new (2.0 KiB sent)"


def test_known_suites_are_not_read_again_unless_something_changed(tmp_path):
    known = KnownSuites(tmp_path, rules=installed_rules())
    known.add(SUITE, project="shop")

    again = KnownSuites(tmp_path, rules=installed_rules())

    assert again.project(SUITE) == "shop"
    assert again.project(SUITE + "\n") is None
    assert KnownSuites(tmp_path, rules="others").project(SUITE) is None


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"key": 1}', b"[" * 100_000])
def test_damaged_memory_of_suites_is_an_empty_one(tmp_path, damage):
    (tmp_path / "suites.json").write_bytes(damage)

    known = KnownSuites(tmp_path, rules="r")
    before = known.project(SUITE)
    known.add(SUITE, project="")

    assert (before, KnownSuites(tmp_path, rules="r").project(SUITE)) == (None, "")


def test_memory_of_suites_is_bounded_and_may_be_lost(tmp_path):
    known = KnownSuites(tmp_path, rules="r")
    for number in range(60):
        known.add(str(number), project="p")
    (tmp_path / "file").touch()
    KnownSuites(tmp_path / "file", rules="r").add(SUITE, project="p")

    assert [KnownSuites(tmp_path, rules="r").project(text) for text in ("0", "59")] == [None, "p"]
