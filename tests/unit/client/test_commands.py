from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import click
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1.health_pb2 import HealthCheckResponse

from fleetest.client.cli.root import COMMANDS, cli
from fleetest.common.errors import DependencyUnavailable, InvalidRequest, NotFound, Unauthenticated
from fleetest.v1 import fleet_pb2, run_pb2, types_pb2
from tests.unit.client.scripted_master import RUN_ID, a_run, at, failing_run, result, task

SHORT = RUN_ID[:13]


@pytest.fixture
def failed(master):
    master.log = failing_run()
    counts = run_pb2.Counts(planned=2, passed=1, failed=1)
    usage = types_pb2.ResourceUsage(
        cpu_time=Duration(seconds=1), wall_time=Duration(seconds=2), peak_memory_bytes=300 << 20
    )
    unit = task(
        "unit",
        "FAILED",
        counts=counts,
        reason="1 of 2 cases failed",
        started_at=at(1),
        ended_at=at(3),
        usage=usage,
        requested=types_pb2.Resources(cpu_millis=2000, memory_bytes=4 << 30),
        packed=types_pb2.Resources(cpu_millis=600, memory_bytes=360 << 20),
    )
    master.run = a_run(
        "FAILED",
        tasks=[unit],
        counts=counts,
        ended_at=at(4),
        user="ann",
        labels={"ci": "nightly"},
        version_control=types_pb2.VersionControl(branch="main", commit="c" * 40, dirty=True),
    )
    master.cases = [
        run_pb2.CaseRecord(
            task_id="unit",
            result=result("t.py::a", "FAILED", message="assert 1 == 2", details="tb", file="t.py", line=3),
        ),
        run_pb2.CaseRecord(task_id="unit", result=result("t.py::b"), flaky=True),
    ]
    return master


def commands():
    context = click.Context(cli)
    return {name: cli.get_command(context, name) for name in COMMANDS}


def with_subcommands(name, command):
    """The command, and those below it, by their whole names."""
    yield name, command
    if isinstance(command, click.Group):
        for below, subcommand in command.commands.items():
            yield f"{name} {below}", subcommand


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_where_the_table_says_and_summed_up_alike(name):
    command = commands()[name]

    assert command.name == name
    first = command.get_short_help_str(limit=200).rstrip(".")
    assert COMMANDS[name].summary.rstrip(".").split(":")[0].split(",")[0] in first or first


def test_every_command_option_and_exit_code_is_in_the_documentation():
    text = Path("docs/cli.md").read_text(encoding="utf-8")

    every = [each for name, command in commands().items() for each in with_subcommands(name, command)]
    for name, command in every:
        assert f"## fleetest {name}" in text, name
        section = text.split(f"## fleetest {name}\n", 1)[1].split("\n## ", 1)[0]
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"`{max(parameter.opts, key=len)}" in section, (name, parameter.opts)
    assert re.findall(r"^\| (\d) \|", text, re.MULTILINE) == ["0", "1", "2", "3"]


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import os, sys\n"
        "from fleetest.client.cli.invocation import invoke\n"
        "assert invoke(['--help'], os.environ) == 0\n"
        "heavy = {'grpc', 'google.protobuf', 'rich', 'pydantic', 'structlog', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    for name in (*COMMANDS, "up", "worker"):
        assert f"\n  {name} " in shown.stdout


def test_what_only_a_view_needs_is_not_loaded_before_a_run_is_handed_in():
    code = (
        "import sys\n"
        "from fleetest.client.cli import run, finding, known_suites, upload_progress\n"
        "from fleetest.client import async_client, scan, streams, submission\n"
        "from fleetest.common import version_control\n"
        "from fleetest.common.suite import infer_suite\n"
        "infer_suite(['pytest', '-x', 'tests'], project='shop', python=sys.executable)\n"
        "heavy = {'rich', 'pydantic', 'structlog', 'yaml', 'msgspec', 'fleetest.common.tasks'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_idle_follower_stays_below_60_megabytes():
    code = (
        "import asyncio\n"
        "from fleetest.client.cli import choosing, following, output, watch\n"
        "from fleetest.client.async_client import AsyncClient\n"
        "async def main():\n"
        "    async with AsyncClient('127.0.0.1:1') as client: client._connection.services\n"
        "    print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
        "asyncio.run(main())\n"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    kibibytes = int(shown.stdout)
    assert kibibytes < 60 * 1024


def test_ls_prints_a_table_and_json(fleetest, failed):
    table = fleetest("ls", "-n", "2", "--branch", "main", "--state", "failed", "--project", "shop")
    document = json.loads(fleetest("ls", "-n", "1", "-o", "json").out)

    assert table.code == 0
    assert re.search(rf"{SHORT} +failed +shop/ci +main +1 of 2 failed +4\.0s +\S+ ago", table.out)
    assert failed.requests("ListRuns")[0].branch == "main"
    assert document[0]["run_id"] == RUN_ID
    assert document[0]["tasks"][0]["predicted_seconds"] is None
    assert document[0]["submitted_at"] == "2026-11-21T12:00:00+00:00"


def test_show_prints_tasks_and_what_failed(fleetest, failed):
    shown = fleetest("show", SHORT)

    assert shown.code == 0
    assert f"run         {RUN_ID}\n" in shown.out
    assert "source      main cccccccccccc with changes\n" in shown.out
    assert re.search(
        r"unit +failed +1 passed, 1 failed +2\.0s +300\.0 MiB of 4\.0 GiB +0\.5 of 2 +1 of 2 cases failed", shown.out
    )
    assert "failed    t.py::a  unit  0.05s\n    assert 1 == 2\n    t.py:3\n" in shown.out
    assert "t.py::b" not in shown.out
    assert "---" not in shown.out


def test_show_prints_all_cases_and_details_when_asked(fleetest, failed):
    every = fleetest("show", "--cases", "-v")
    document = json.loads(fleetest("show", "--cases", "-o", "json").out)

    assert "passed    t.py::b  unit  0.05s  flaky\n" in every.out
    assert "    t.py:3\n    tb\n" in every.out
    assert [case["result"]["outcome"] for case in document["cases"]] == ["failed", "passed"]
    shown = document["tasks"][0]
    assert (shown["usage"]["cpu_time_seconds"], shown["usage"]["wall_time_seconds"]) == (1.0, 2.0)
    assert (shown["requested"]["memory_bytes"], shown["packed"]["memory_bytes"]) == (4 << 30, 360 << 20)
    assert document["cases"][0]["result"]["duration_seconds"] == 0.05


def test_show_prints_the_end_of_what_a_failed_command_wrote_and_all_of_it_when_asked(fleetest, master):
    master.run = a_run("FAILED", tasks=[task("build", "FAILED")])
    output = "\n".join(f"line {number}" for number in range(1, 13))
    case = result("build", "FAILED", message="the command ended with exit code 3", details=output)
    master.cases = [run_pb2.CaseRecord(task_id="build", result=case, attempts=1)]

    short, whole = fleetest("show").out, fleetest("show", "-v").out

    assert "failed    build  0.05s\n    the command ended with exit code 3\n    … 2 more above\n    line 3\n" in short
    assert short.endswith("    line 12\n")
    assert "    line 1\n    line 2\n" in whole
    assert "more above" not in whole


def test_logs_prints_bytes_as_they_are(fleetest, master):
    master.run = a_run(tasks=[task("unit")])
    master.chunks = [
        run_pb2.LogChunk(shard_id="unit#0", token=2, content=b"\x1b[31m\xff\n"),
        run_pb2.LogChunk(shard_id="unit#0", token=2, offset_bytes=7, content=b"end", truncated=True),
    ]

    shown = fleetest("logs", "latest", "-f", "--shard", "unit#0")

    assert shown.code == 0
    assert shown.out == "\x1b[31m\udcff\nend"
    assert "was dropped" in shown.err
    (request,) = master.requests("ReadLogs")
    assert (request.task_id, request.shard_id, request.follow) == ("unit", "unit#0", True)


def test_logs_of_a_run_with_several_tasks_asks_for_one(fleetest, master):
    master.run = a_run(tasks=[task("unit"), task("lint")])

    shown = fleetest("logs", SHORT)

    assert shown.code == 2
    assert shown.err == "fleetest: the run has 2 tasks\nName one of them: unit, lint\n"


def test_cancel_says_what_it_did(fleetest, master):
    whole = fleetest("cancel", SHORT, "--grace", "3", "--reason", "enough")
    over = fleetest("cancel", SHORT, "over")

    assert whole.err == f"run {SHORT} is being cancelled\n"
    assert over.err == f"task over of run {SHORT} had ended already\n"
    assert master.requests("CancelRun")[0].grace.seconds == 3


def test_cache_clear_says_what_is_forgotten(fleetest, master):
    done = fleetest("cache", "clear", "--project", "shop", "--task", "unit", "--file", "tests/test_a.py")
    nameless = fleetest("cache", "clear", "--project", "shop", "--file", "tests/test_a.py")

    assert done.err == "forgotten: what is cached of shop / unit / tests/test_a.py\n"
    (request,) = master.requests("InvalidateCache")
    assert (request.project, request.task_id, request.file) == ("shop", "unit", "tests/test_a.py")
    assert nameless.code == 2
    assert "--file needs --task" in nameless.err


def test_explain_tells_reasons(fleetest, master):
    master.explanations = [
        run_pb2.TaskExplanation(
            task_id="e2e",
            state=types_pb2.TASK_STATE_QUEUED,
            reasons=[
                run_pb2.Reason(kind="REASON_KIND_BEHIND_OTHERS", message="2 tasks are before it"),
                run_pb2.Reason(
                    kind="REASON_KIND_MISSING_CAPABILITY", constraint="gpu=a100", workers=3, workers_total=3
                ),
            ],
        )
    ]

    shown = fleetest("explain")
    document = json.loads(fleetest("explain", "latest", "e2e", "-o", "json").out)

    assert shown.out == "e2e  queued\n  - 2 tasks are before it\n  - missing capability gpu=a100 (3 of 3 workers)\n"
    assert document[0]["reasons"][1]["kind"] == "missing_capability"
    master.explanations = []
    assert fleetest("explain").out == "every task has ended\n"


def test_artifacts_are_listed_and_saved(fleetest, master, tmp_path):
    master.artifacts = [
        run_pb2.TaskArtifact(
            task_id="unit",
            artifact=types_pb2.Artifact(path=path, digest=master.add_blob(b"content"), size_bytes=7),
        )
        for path in ("a/report.html", "b.log")
    ]

    listed = fleetest("artifacts")
    saved = fleetest("artifacts", "--match", "*.log", "--save", str(tmp_path / "saved"), "-o", "json")
    told = fleetest("artifacts", "--save", str(tmp_path / "saved"))

    assert re.search(r"unit +a/report.html +7 B", listed.out)
    assert json.loads(saved.out)[0]["saved_as"] == str(tmp_path / "saved" / "unit" / "b.log")
    assert (tmp_path / "saved" / "unit" / "b.log").read_bytes() == b"content"
    assert told.err.endswith(f"2 files saved below {tmp_path / 'saved'}\n")


def test_artifacts_are_shown_by_url_where_the_store_gives_any(fleetest, master):
    artifact = types_pb2.Artifact(path="b.log", digest="d", size_bytes=7)
    master.artifacts = [run_pb2.TaskArtifact(task_id="unit", artifact=artifact, url="https://store/b?signed")]

    shown = fleetest("artifacts", "--url=2h")
    master.artifacts[0].url = ""
    refused = fleetest("artifacts", "--url")

    assert re.search(r"b\.log +https://store/b\?signed\n", shown.out)
    assert [each.url_ttl.seconds for each in master.requests("ListArtifacts")] == [7200, 3600]
    assert refused.code == 2
    assert "gives no URLs" in refused.err


def test_artifacts_are_deleted_those_of_several_runs_only_by_who_is_sure(fleetest, master):
    master.number_of_runs = 70
    master.artifacts = [
        run_pb2.TaskArtifact(
            task_id="unit", shard_id="unit#0", artifact=types_pb2.Artifact(path=path, digest="d", size_bytes=7)
        )
        for path in ("b.log", *(f"{number}.png" for number in range(19)))
    ]

    deleted = fleetest("artifacts", "latest", "unit", "*.log", "--delete")
    asked = fleetest("artifacts", "--all-runs", "--delete")
    sure = fleetest("artifacts", "--all-runs", "--delete", "--yes", "-o", "json")

    assert deleted.err.endswith("1 file of 1 run deleted\n")
    assert "Delete 1,400 files (9.6 KiB) of 1 run?" in asked.err
    assert asked.code != 0
    assert json.loads(sure.out)["deleted"] == 1400
    first, *rest = master.requests("DeleteArtifacts")
    assert [(each.shard_id, each.path) for each in first.artifacts] == [("unit#0", "b.log")]
    assert sum(len(each.artifacts) for each in rest) == 1400


def test_show_names_what_a_run_and_what_a_failed_case_left(fleetest, failed):
    failed.artifacts = [
        run_pb2.TaskArtifact(
            task_id="unit",
            shard_id="unit#0",
            artifact=types_pb2.Artifact(path=path, digest="d", size_bytes=2048, case_id=case_id),
        )
        for path, case_id in (("out/a/trace.zip", "t.py::a"), ("out/b/trace.zip", "t.py::b"), ("server.log", ""))
    ]

    failed.run.tasks[0].not_kept.append("core: larger than 1 GiB")

    shown = fleetest("show")
    document = json.loads(fleetest("show", "-o", "json").out)

    assert "\nnot kept as artifacts\n  core: larger than 1 GiB  unit\n" in shown.out
    assert "artifacts   3 files, 6.0 KiB\n" in shown.out
    assert "    t.py:3\n    left out/a/trace.zip  2.0 KiB\n" in shown.out
    assert "out/b" not in shown.out
    assert document["artifacts"][0]["artifact"]["case_id"] == "t.py::a"


def test_workers_are_listed(fleetest, master):
    master.workers = [
        fleet_pb2.Worker(
            worker_id="w1",
            state=fleet_pb2.WORKER_STATE_BUSY,
            slots=4,
            slots_used=1,
            capacity=types_pb2.Resources(cpu_millis=4000, memory_bytes=8 << 30),
            host=types_pb2.ResourceSample(at=at(0), cpu_cores=1.5, memory_bytes=1 << 30),
            capabilities={"os": "linux", "python": "3.11"},
            ready=True,
            speed=0.52,
        ),
        fleet_pb2.Worker(worker_id="w2", state=fleet_pb2.WORKER_STATE_IDLE, not_ready_reason="disk full"),
    ]

    shown = fleetest("workers", "-c", "--offline")
    document = json.loads(fleetest("workers", "-o", "json").out)

    assert re.search(r"w1 +busy +1/4 +0\.52 +1\.5/4 +1\.0 GiB/8\.0 GiB", shown.out)
    assert "idle, not ready: disk full" in shown.out
    assert "\nw1: os=linux python=3.11\n" in shown.out
    assert document[0]["capabilities"]["os"] == "linux"
    assert [worker["speed"] for worker in document] == [0.52, None]


def test_drain_says_so(fleetest, master):
    assert fleetest("drain", "w1", "--reason", "old").err == "w1 finishes what it runs, and takes no more\n"


def test_schema_is_json(fleetest):
    assert json.loads(fleetest("schema").out)["$schema"].startswith("https://json-schema.org")


def test_version_names_client_and_master(fleetest, master):
    both = fleetest("version")
    document = json.loads(fleetest("version", "-o", "json").out)
    alone = fleetest("version", environment={"FLEETEST_MASTER": ""})

    assert "master   9.9, protocol 1 to 1, 3 workers, 2 active runs\n" in both.out
    assert document["master"]["version"] == "9.9"
    assert "master" not in alone.out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(fleetest, shell):
    assert "_FLEETEST_COMPLETE" in fleetest("completion", shell).out


def test_the_shell_completes_commands_without_importing_them():
    environment = {"_FLEETEST_COMPLETE": "bash_complete", "COMP_WORDS": "fleetest wor", "COMP_CWORD": "1", "PATH": ""}
    code = "from fleetest.client.__main__ import main; import sys; sys.argv = ['fleetest']; main()"

    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert shown.stdout.split() == ["plain,workers", "plain,worker"]


def test_watch_exits_as_the_run_ended(fleetest, failed):
    shown = fleetest("watch", SHORT)

    assert shown.code == 1
    assert shown.out == ""
    assert "FAILED t.py::a  unit\n    assert 1 == 2\n" in shown.err


def test_watch_prints_the_ended_run_as_json(fleetest, failed):
    shown = fleetest("watch", "-q", "-o", "json")

    assert json.loads(shown.out)["state"] == "failed"
    assert "see more" not in shown.err


def test_watch_writes_reports_and_artifacts_also_of_failed_runs(fleetest, failed, tmp_path):
    failed.artifacts = [
        run_pb2.TaskArtifact(
            task_id="unit", artifact=types_pb2.Artifact(path="x.txt", digest=failed.add_blob(b"x"), size_bytes=1)
        )
    ]

    shown = fleetest("watch", "--junit", "r/j.xml", "--json", "r/c.json", "--artifacts", str(tmp_path / "got"))

    assert shown.code == 1
    assert 'failures="1"' in Path("r/j.xml").read_text()
    assert json.loads(Path("r/c.json").read_text())["results"]["summary"]["failed"] == 1
    assert (tmp_path / "got" / "unit" / "x.txt").exists()


def test_retry_submits_again_and_follows(fleetest, master):
    followed = fleetest("retry", SHORT, "--all", "--secret", "S", environment={"S": "value"})
    detached = fleetest("retry", SHORT, "--detach")

    assert followed.code == 0
    assert detached.out == f"{RUN_ID}\n"
    first, second = master.requests("RetryRun")
    assert (first.all, dict(first.secrets), second.all) == (True, {"S": "value"}, False)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NotFound("no such run: x", hint="fleetest ls lists them"), 2, "fleetest ls lists them"),
        (Unauthenticated("no token", hint="set it"), 2, "Set it"),
    ],
)
def test_an_error_is_a_line_of_what_and_a_line_of_what_to_do(fleetest, master, error, code, said):
    master.faults.append(error)

    shown = fleetest("show", "x")

    assert (shown.code, shown.err) == (code, f"fleetest: {error.message}\n{said}\n")


def test_an_unreachable_master_is_infrastructure(fleetest, monkeypatch):
    from fleetest.client.connection import Persistence

    patience = {**Persistence.__init__.__kwdefaults__, "patience": timedelta()}
    monkeypatch.setattr(Persistence.__init__, "__kwdefaults__", patience)

    shown = fleetest("ls", environment={"FLEETEST_MASTER": "127.0.0.1:1,127.0.0.1:2"})

    assert shown.code == 3
    assert "127.0.0.1:1 does not answer; trying again for 0 s\n" in shown.err
    assert re.search(
        r"^fleetest: no master answers at 127\.0\.0\.1:1, 127\.0\.0\.1:2: [A-Z][a-z ]+( \(\d+\))?$",
        shown.err,
        re.MULTILINE,
    )


def test_without_a_master_reading_commands_say_what_to_do(fleetest):
    shown = fleetest("ls", environment={"FLEETEST_MASTER": ""})

    assert shown.code == 3
    assert "no cluster runs on this machine" in shown.err
    assert "FLEETEST_MASTER" in shown.err


def test_an_unexpected_error_is_an_id_and_a_place_not_a_traceback(fleetest, monkeypatch, tmp_path):
    def broken(*_args, **_options):
        raise ZeroDivisionError("the bug")

    monkeypatch.setattr("fleetest.common.suite.suite_schema", broken)

    shown = fleetest("schema")
    debug = fleetest("schema", environment={"FLEETEST_DEBUG": "1"})

    assert shown.code == debug.code == 3
    assert "Traceback" not in shown.err
    assert "ZeroDivisionError" in shown.err
    log = tmp_path / "data" / "client.log"
    assert "the bug" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    assert "ZeroDivisionError: the bug" in debug.err


def test_an_unexpected_error_is_told_also_where_no_log_can_be_written(fleetest, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("fleetest.common.suite.suite_schema", None)

    shown = fleetest("schema", environment={"FLEETEST_DATA_DIR": str(tmp_path / "file")})

    assert "Set FLEETEST_DEBUG=1" in shown.err


def test_settings_that_make_no_sense_are_usage(fleetest):
    assert fleetest("ls", environment={"FLEETEST_MASTER": "what?"}).code == 2


@pytest.mark.parametrize("arguments", [("nothing",), ("ls", "--nothing"), ("ls", "-n", "0"), ("show", "a", "b"), ()])
def test_wrong_usage_exits_with_2(fleetest, arguments):
    shown = fleetest(*arguments)

    assert shown.code == 2
    assert "Usage: fleetest" in shown.err


def test_a_misspelt_command_is_guessed(fleetest):
    assert "Did you mean 'artifacts'?" in fleetest("artefacts").err


def test_a_part_that_is_not_installed_is_named_with_the_cure(fleetest, monkeypatch):
    monkeypatch.setitem(sys.modules, "fleetest.master.commands", None)

    shown = fleetest("up")

    assert shown.code == 3
    assert "pip install 'fleetest[embedded]'" in shown.err


def test_a_reader_that_leaves_early_is_no_error(master):
    code = "from fleetest.client.__main__ import main; main()"
    command = f'{sys.executable} -c "{code}" ls -n 10000 -o json | head -c 10'

    shown = subprocess.run(
        ["/bin/sh", "-c", command],
        env={"FLEETEST_MASTER": master.address, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stderr == ""


def test_stopping_with_ctrl_c_is_said_in_a_word(fleetest, monkeypatch):
    def stopped(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("fleetest.common.suite.suite_schema", stopped)

    shown = fleetest("schema")

    assert (shown.code, shown.err) == (1, "\nfleetest: stopped\n")


def test_every_kind_of_error_has_its_exit_code():
    from fleetest.client.cli.exit_codes import exit_code_of_error, exit_code_of_run
    from fleetest.common.states import RunState

    assert [exit_code_of_run(state) for state in RunState] == [1, 0, 1, 3, 1]
    assert exit_code_of_error(InvalidRequest("x")) == 2
    assert exit_code_of_error(DependencyUnavailable("x")) == 3


def test_health_needs_no_token_and_finds_one_master_that_serves(fleetest, master):
    master.health.set("", HealthCheckResponse.SERVING)

    shown = fleetest("health", "--master", f"127.0.0.1:1,{master.address}")

    assert (shown.code, shown.out, shown.err) == (0, "serving\n", "")


def test_health_says_what_is_wrong(fleetest, master):
    nobody = fleetest("health", "--master", "127.0.0.1:1")
    master.health.set("", HealthCheckResponse.NOT_SERVING)
    not_yet = fleetest("health")

    assert nobody.code == not_yet.code == 3
    assert nobody.err.startswith("fleetest: no master answers at 127.0.0.1:1: ")
    assert not_yet.err.startswith("fleetest: the master answers, but does not serve\n")
