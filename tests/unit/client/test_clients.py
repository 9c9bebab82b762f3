from __future__ import annotations

import inspect
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread

import pytest

import fleetest.client
from fleetest.client import AsyncClient, Client, convert
from fleetest.client.downloads import artifact_target
from fleetest.client.values import ReasonKind, TaskArtifact
from fleetest.common.errors import DependencyUnavailable, InvalidRequest, NotFound
from fleetest.common.results import Artifact, Counts
from fleetest.common.states import Outcome, RunState, TaskState, WorkerState
from fleetest.common.version_control import VersionControl
from fleetest.v1 import fleet_pb2, run_pb2, types_pb2
from tests.unit.client.scripted_master import RUN_ID, START, ScriptedMaster, a_run, at, result, task


@pytest.fixture
def client(master, at_once):
    with Client(master.address, project="shop", persistence=at_once) as client:
        yield client


class Store(ThreadingHTTPServer):
    """Gives out files over HTTP, as an object store does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Store

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def store():
    with Store() as store:
        serving = Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield store
        store.shutdown()
        serving.join()


def in_store(store: Store, artifact: run_pb2.TaskArtifact) -> run_pb2.TaskArtifact:
    """The artifact, with the URL of its content there."""
    path = f"/{artifact.artifact.digest}"
    store.files[path] = artifact.artifact.path.removesuffix(".txt").encode()
    artifact.url = f"http://127.0.0.1:{store.server_port}{path}"
    return artifact


def an_artifact(master: ScriptedMaster, path: str, content: bytes) -> run_pb2.TaskArtifact:
    artifact = types_pb2.Artifact(path=path, digest=master.add_blob(content), size_bytes=len(content))
    return run_pb2.TaskArtifact(task_id="unit", shard_id="unit#0", artifact=artifact)


def test_public_names_are_all_there():
    for name in fleetest.client.__all__:
        assert getattr(fleetest.client, name) is not None
    with pytest.raises(AttributeError):
        _ = fleetest.client.nothing


@pytest.mark.parametrize(
    "module",
    sorted(
        path.relative_to(Path(fleetest.client.__file__).parent).with_suffix("").as_posix().replace("/", ".")
        for path in Path(fleetest.client.__file__).parent.rglob("*.py")
        if path.stem != "__init__"
    ),
)
def test_every_module_names_what_is_public_and_has_it(module):
    loaded = import_module(f"fleetest.client.{module}")

    assert loaded.__all__
    assert not [name for name in loaded.__all__ if not hasattr(loaded, name)]


def test_both_clients_have_the_same_methods_with_the_same_parameters():
    def signatures(kind):
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert signatures(Client) == signatures(AsyncClient)


def test_submission_carries_all_that_is_asked(master, client):
    submission = client.submit(
        "version: 1",
        source="ci.yaml",
        workspace_digest="d" * 64,
        version_control=VersionControl(commit="abc", branch="main"),
        secrets={"TOKEN": "s3cret"},
        labels={"a": "b"},
        user="ann",
        executor="process",
        supersede=True,
        fail_fast=True,
        idempotency_key="key",
    )

    assert submission.run_id == RUN_ID
    assert submission.superseded_run_ids == ("older",)
    (request,) = master.requests("SubmitRun")
    assert (request.suite_source, request.project, request.idempotency_key) == ("ci.yaml", "shop", "key")
    assert (request.version_control.branch, request.secrets["TOKEN"], request.labels["a"]) == ("main", "s3cret", "b")
    assert (request.supersede, request.fail_fast, request.executor, request.user) == (True, True, "process", "ann")


def test_a_submission_tried_again_keeps_its_key(master, client):
    master.faults.append(DependencyUnavailable("later"))

    client.submit("version: 1")

    first, second = master.requests("SubmitRun")
    assert first.idempotency_key == second.idempotency_key != ""


def test_a_run_is_answered_as_values(master, client):
    master.run = a_run(
        "FAILED",
        tasks=[
            task(
                "unit",
                "FAILED",
                counts=run_pb2.Counts(planned=3, failed=1, passed=2, flaky=1),
                needs=["lint"],
                started_at=at(1),
                ended_at=at(3),
                predicted=timedelta(seconds=2),
            )
        ],
        ended_at=at(4),
        labels={"k": "v"},
        position=7,
    )

    run = client.get_run(RUN_ID[:8])

    assert (run.state, run.submitted_at, run.ended_at, run.position) == (RunState.FAILED, START, at(4), 7)
    (unit,) = run.tasks
    assert (unit.state, unit.needs, unit.predicted) == (TaskState.FAILED, ("lint",), timedelta(seconds=2))
    assert unit.counts == Counts(planned=3, failed=1, passed=2, flaky=1)
    assert unit.queued_at is None
    assert master.requests("GetRun")[0].run_id == RUN_ID[:8]


def test_listing_runs_reads_as_many_pages_as_it_needs(master, client):
    runs = client.list_runs(limit=600, branch="main", state=RunState.PASSED)

    assert len(runs) == 600
    requests = master.requests("ListRuns")
    assert [(each.page_size, each.page_token, each.project) for each in requests] == [
        (500, "", "shop"),
        (100, "500", "shop"),
    ]
    assert len(client.list_runs(limit=5000)) == 700


def test_cases_come_page_by_page_and_by_outcome(master, client):
    master.cases = [
        run_pb2.CaseRecord(task_id="unit", result=result(f"c{number}", outcome), attempts=2, flaky=True)
        for number, outcome in enumerate(["PASSED", "FAILED", "FAILED"])
    ]

    every = list(client.cases(RUN_ID))
    failed = list(client.cases(RUN_ID, outcomes=[Outcome.FAILED]))

    assert [each.result.case_id for each in every] == ["c0", "c1", "c2"]
    assert [each.result.case_id for each in failed] == ["c1", "c2"]
    assert every[0].flaky


def test_logs_after_a_break_hold_nothing_twice(master, client):
    master.chunks = [
        run_pb2.LogChunk(shard_id="unit#0", token=2, offset_bytes=0, content=b"one "),
        run_pb2.LogChunk(shard_id="unit#1", token=3, offset_bytes=0, content=b"two "),
        run_pb2.LogChunk(shard_id="unit#0", token=2, offset_bytes=4, content=b"three"),
        run_pb2.LogChunk(shard_id="unit#0", token=2, offset_bytes=9, truncated=True),
    ]
    master.cuts.extend([2, 3])

    chunks = list(client.logs(RUN_ID, "unit", follow=True))

    assert b"".join(each.content for each in chunks) == b"one two three"
    assert [each.truncated for each in chunks] == [False, False, False, True]


def test_a_stream_left_early_is_ended(master, client):
    for commit in client.watch(RUN_ID):
        assert commit.position == 1
        break

    assert client.get_run().run_id == RUN_ID


def test_cancelling_says_whether_there_was_something_to_cancel(master, client):
    assert client.cancel(RUN_ID, reason="why", grace=timedelta(seconds=3))
    assert not client.cancel(RUN_ID, task_id="over")

    with_grace, without = master.requests("CancelRun")
    assert (with_grace.grace.seconds, with_grace.reason) == (3, "why")
    assert not without.HasField("grace")


def test_what_is_cached_is_invalidated_by_project_task_and_file(master, client):
    client.invalidate_cache(project="shop", task_id="unit", file="t.py")

    (request,) = master.requests("InvalidateCache")
    assert (request.project, request.task_id, request.file) == ("shop", "unit", "t.py")


def test_retrying_and_draining_reach_the_master(master, client):
    submission = client.retry(RUN_ID, everything=True, secrets={"A": "b"})
    client.drain("w1", reason="tired")

    assert submission.already_submitted
    assert master.requests("RetryRun")[0].all
    assert master.requests("DrainWorker")[0].reason == "tired"


def test_reasons_that_only_a_newer_master_knows_are_unknown(master, client):
    master.explanations = [
        run_pb2.TaskExplanation(
            task_id="unit",
            state=types_pb2.TASK_STATE_QUEUED,
            reasons=[run_pb2.Reason(kind="REASON_KIND_NO_WORKERS", message="none"), run_pb2.Reason(kind=99)],
        )
    ]

    (explanation,) = client.explain(RUN_ID)
    assert client.explain_once(RUN_ID) == [explanation]

    assert [reason.kind for reason in explanation.reasons] == [ReasonKind.NO_WORKERS, ReasonKind.UNKNOWN]


def test_workers_are_answered_as_values(master, client):
    master.workers = [
        fleet_pb2.Worker(
            worker_id="w1",
            state=fleet_pb2.WORKER_STATE_BUSY,
            capabilities={"os": "linux"},
            slots=4,
            slots_used=1,
            host=types_pb2.ResourceSample(at=at(0), cpu_cores=1.5),
            attempts=[types_pb2.AttemptRef(run_id=RUN_ID, shard_id="unit#0", token=2)],
            last_seen_at=at(1),
            ready=True,
        ),
        fleet_pb2.Worker(worker_id="w2", state=fleet_pb2.WORKER_STATE_OFFLINE),
    ]

    busy, offline = client.workers(include_offline=True)

    assert (busy.state, busy.slots_used, busy.attempts) == (WorkerState.BUSY, 1, ((RUN_ID, "unit#0"),))
    assert busy.host is not None
    assert busy.host.cpu_cores == 1.5
    assert offline.host is None
    assert not offline.ready


def test_an_artifact_is_saved_whole_below_its_task(master, client, tmp_path):
    master.artifacts = [an_artifact(master, "out/report.txt", b"all well")]
    master.cuts.append(1)

    (artifact,) = client.artifacts(RUN_ID)
    saved = client.download(artifact, tmp_path)

    assert saved == tmp_path / "unit" / "out" / "report.txt"
    assert saved.read_bytes() == b"all well"
    assert [path.name for path in saved.parent.iterdir()] == ["report.txt"]


def test_an_artifact_comes_straight_from_the_store_where_that_can_be_reached(master, client, store, tmp_path):
    master.artifacts = [in_store(store, an_artifact(master, f"{name}.txt", name.encode())) for name in "ab"]
    master.blobs.clear()

    saved = [client.download(each, tmp_path) for each in client.artifacts(RUN_ID, url_ttl=timedelta(hours=1))]

    assert [path.read_bytes() for path in saved] == [b"a", b"b"]
    assert master.requests("ListArtifacts")[0].url_ttl.seconds == 3600


@pytest.mark.parametrize("broken", ["damaged", "absent", "unreachable"])
def test_an_artifact_that_the_store_does_not_give_comes_from_the_master(master, client, store, tmp_path, broken):
    master.artifacts = [in_store(store, an_artifact(master, f"{name}.txt", name.encode())) for name in "ab"]
    if broken == "unreachable":
        for each in master.artifacts:
            each.url = "http://127.0.0.1:1/nobody"
    else:
        store.files = {path: b"other" for path in store.files if broken == "damaged"}

    saved = [client.download(each, tmp_path) for each in client.artifacts(RUN_ID, url_ttl=timedelta(hours=1))]

    assert [path.read_bytes() for path in saved] == [b"a", b"b"]
    assert len(store.asked) <= 1  # it is not asked again and again


def test_artifacts_are_deleted_run_by_run_and_not_too_many_at_once(master, client):
    artifacts = [
        TaskArtifact(
            run_id=run_id, task_id="unit", shard_id="unit#0", artifact=Artifact(path=str(each), digest="", size_bytes=0)
        )
        for run_id, number in (("a", 1001), ("b", 1))
        for each in range(number)
    ]

    deleted = client.delete_artifacts(artifacts)

    assert deleted == 1002
    requests = master.requests("DeleteArtifacts")
    assert [(each.run_id, len(each.artifacts)) for each in requests] == [("a", 1000), ("a", 1), ("b", 1)]
    assert (requests[2].artifacts[0].shard_id, requests[2].artifacts[0].path) == ("unit#0", "0")


def test_a_damaged_artifact_leaves_nothing_behind(master, client, tmp_path):
    master.artifacts = [an_artifact(master, "a.txt", b"content")]
    master.blobs = dict.fromkeys(master.blobs, b"other!!")

    with pytest.raises(DependencyUnavailable, match="damaged"):
        client.download(client.artifacts(RUN_ID)[0], tmp_path)

    assert not list((tmp_path / "unit").iterdir())


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_an_artifact_cannot_leave_the_directory(path, tmp_path):
    artifact = TaskArtifact(task_id="unit", shard_id="", artifact=Artifact(path=path, digest="", size_bytes=0))

    with pytest.raises(InvalidRequest):
        artifact_target(artifact, tmp_path)


def test_an_artifact_does_not_follow_a_link_out_of_the_directory(tmp_path):
    directory = tmp_path / "saved"
    (directory / "unit").mkdir(parents=True)
    (directory / "unit" / "link").symlink_to(tmp_path)
    artifact = TaskArtifact(task_id="unit", shard_id="", artifact=Artifact(path="link/x", digest="", size_bytes=0))

    with pytest.raises(InvalidRequest, match="symbolic link"):
        artifact_target(artifact, directory)


def test_a_task_named_like_a_parent_directory_stays_inside(tmp_path):
    artifact = TaskArtifact(task_id="..", shard_id="", artifact=Artifact(path="x", digest="", size_bytes=0))

    assert artifact_target(artifact, tmp_path) == tmp_path / "task" / "x"


def test_an_upload_goes_on_when_the_master_was_away(master, client, tmp_path):
    from fleetest.client.scan import scan_workspace

    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.txt").write_text("hello")
    workspace = scan_workspace(tmp_path / "tree", cache_directory=tmp_path / "cache")
    master.faults.append(DependencyUnavailable("later"))

    report = client.upload(workspace, tmp_path / "tree")

    assert report.sent_files == 1
    assert workspace.digest in master.blobs


def test_a_closed_client_can_be_closed_again(master, at_once):
    client = Client(master.address, persistence=at_once)
    client.close()

    client.close()


def test_an_error_reaches_the_waiting_thread(master, client):
    master.faults.append(NotFound("no such run"))

    with pytest.raises(NotFound):
        list(client.watch("x"))


def test_every_event_of_the_wire_is_understood():
    wire = run_pb2.RunEvent.DESCRIPTOR.oneofs_by_name["event"]

    several = {"attempt_done", "attempts_done", "attempts_started"}
    assert convert._EVENTS.keys() | several == {field.name for field in wire.fields}
