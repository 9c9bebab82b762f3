"""The asynchronous client of a Fleetest cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from fleetest.client.addresses import parse_addresses
from fleetest.client.connection import Connection, Persistence
from fleetest.client.later import Later
from fleetest.client.submission import Submission, submission_from_proto
from fleetest.common.convert_version_control import version_control_to_proto
from fleetest.common.errors import DependencyUnavailable, FleetestError
from fleetest.common.ids import new_token
from fleetest.common.settings import Secret
from fleetest.common.states import Outcome, RunState
from fleetest.common.tls import ClientTls
from fleetest.common.version_control import VersionControl
from fleetest.common.workspace import Workspace
from fleetest.v1 import fleet_pb2, run_pb2

if TYPE_CHECKING:
    from fleetest.client import convert, streams
    from fleetest.client.downloads import StoreDownloads
    from fleetest.client.events import Commit
    from fleetest.client.imports import ReportSource
    from fleetest.client.uploads import UploadReport
    from fleetest.client.values import (
        CaseRecord,
        LogChunk,
        Run,
        ServerInfo,
        TaskArtifact,
        TaskExplanation,
        Token,
        TokenAccess,
        Worker,
    )
    from fleetest.common import convert as convert_values
    from fleetest.v1.blob_pb2_grpc import BlobServiceAsyncStub

else:
    convert, streams = Later("fleetest.client.convert"), Later("fleetest.client.streams")
    convert_values = Later("fleetest.common.convert")

__all__ = ["AsyncClient"]

_MAX_PAGE: Final = 500
_DELETED_AT_ONCE: Final = 1000
_CASES_PAGE: Final = 1000


class AsyncClient:
    """
    A cluster, as those who submit and follow runs see it.

    Calls that found no master are made again, at the next address when there are several; `watch` and `logs` go on
    where they broke. Everything raises `FleetestError`: `DependencyUnavailable` when no master answers,
    `NotFound` for what does not exist, `Unauthenticated` and `Forbidden` as the token deserves. Use it as an
    asynchronous context manager, or `close` it.

    Args:
        address: `host:port` or `unix:///path`; several parted by commas.
        token: of a client; empty for a master that asks for none.
        tls: how the master is called over TLS; `None` means without.
        project: whose runs are meant when a call does not say.
        on_trouble: told, in a line for people, each time that something is tried again.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        tls: ClientTls | None = None,
        project: str = "",
        persistence: Persistence | None = None,
        on_trouble: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._store: StoreDownloads | None = None
        self._connection = Connection(
            parse_addresses(address), token=token, tls=tls, persistence=persistence, on_trouble=on_trouble
        )
        self._project = project

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connection go. Idempotent."""
        await self._connection.close()

    async def upload(
        self, workspace: Workspace, root: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> UploadReport:
        """
        Bring a workspace's files to the master, those that it lacks. Idempotent; goes on where it was cut off.

        Args:
            workspace: as scanned.
            root: where the files are.
            progress: told how many bytes of how many the master has by now, of those that it lacked.

        Raises:
            InvalidRequest: a file changed since the scan.
            CapacityExceeded: the master has no room.
        """
        from fleetest.client.uploads import upload_workspace  # needed by `run` alone

        services, in_a_row = self._connection.services, self._connection.failures()

        async def go_on(failures: int, error: FleetestError) -> BlobServiceAsyncStub:
            nonlocal services
            if failures == 1 and in_a_row.count:  # some has come through since the last
                in_a_row.progressed()
            await self._connection.recover(services, in_a_row, error)
            services = self._connection.services
            return services.blobs

        return await upload_workspace(services.blobs, workspace, root, progress=progress, go_on=go_on)

    async def submit(
        self,
        suite_text: str,
        *,
        source: str = "fleetest.yaml",
        workspace_digest: str = "",
        project: str = "",
        version_control: VersionControl | None = None,
        secrets: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        user: str = "",
        executor: str = "",
        environment: str = "",
        environment_settings: Mapping[str, str] | None = None,
        supersede: bool = False,
        fail_fast: bool = False,
        idempotency_key: str = "",
        followed: bool = False,
    ) -> Submission:
        """
        Hand a suite in. Idempotent by `idempotency_key`; without one, by a fresh key: a lost answer is safe.

        Args:
            suite_text: the suite as YAML.
            source: where it came from, for messages.
            workspace_digest: of an uploaded workspace; empty when the tasks need no files.
            project: fair share and history are kept by project.
            version_control: where the workspace came from.
            secrets: name to value; they reach the environment of tasks that name them, and nothing else.
            labels: free words to find the run by.
            user: who submits.
            executor: `process` or `docker`: overrides what the tasks ask.
            environment: which of the suite's environments; empty means as the suite says.
            environment_settings: what is other there than the suite says, as in `services.shop.url`.
            supersede: cancel older runs of the same project, suite and branch.
            fail_fast: the first failure cancels the rest.
            idempotency_key: the second submission with it answers the first run.
            followed: `watch` comes next, so the answer may come on its stream: that is one call less.

        Raises:
            SuiteInvalid: every problem of the suite.
            WrongState: the workspace has not been uploaded.
        """
        request = run_pb2.SubmitRunRequest(
            suite=suite_text,
            suite_source=source,
            workspace_digest=workspace_digest,
            project=project or self._project,
            idempotency_key=idempotency_key or new_token(),
            version_control=version_control_to_proto(version_control) if version_control else None,
            secrets=secrets or {},
            supersede=supersede,
            fail_fast=fail_fast,
            user=user,
            labels=labels or {},
            executor=executor,
            environment=environment,
            environment_settings=environment_settings or {},
        )
        if followed:
            response = await streams.start_run(self._connection, request)
        else:
            response = await self._connection.call(lambda services: services.runs.SubmitRun, request)
        return submission_from_proto(response)

    async def import_run(
        self,
        reports: Sequence[ReportSource],
        *,
        name: str,
        project: str = "",
        version_control: VersionControl | None = None,
        labels: Mapping[str, str] | None = None,
        user: str = "",
        idempotency_key: str = "",
    ) -> Submission:
        """
        Make a run of reports that were made elsewhere, each a task; the run has ended when this returns. Idempotent by
        `idempotency_key`; without one, by a fresh key.

        Args:
            reports: read while they are sent.
            name: of the run, where others have their suite's.
            project: history is kept by project.
            version_control: what was tested.
            labels: free words to find the run by.
            user: who imports.
            idempotency_key: the second import with it answers the first run.

        Raises:
            InvalidRequest: something about the import is wrong.
            CapacityExceeded: it is too large.
        """
        from fleetest.client.imports import import_run  # needed by `import` alone

        begin = run_pb2.ImportBegin(
            project=project or self._project,
            name=name,
            idempotency_key=idempotency_key or new_token(),
            version_control=version_control_to_proto(version_control) if version_control else None,
            user=user,
            labels=labels or {},
        )
        return submission_from_proto(await import_run(self._connection, begin, reports))

    async def get_run(self, run_id: str = "latest") -> Run:
        """
        A run as it is now.

        Args:
            run_id: a unique prefix will do, and `latest` is the project's last one.

        Raises:
            InvalidRequest: several runs begin so.
        """
        request = run_pb2.GetRunRequest(run_id=run_id, project=self._project)
        return convert.run_from_proto(await self._connection.call(lambda services: services.runs.GetRun, request))

    async def list_runs(
        self, *, project: str = "", branch: str = "", state: RunState | None = None, limit: int = 50
    ) -> list[Run]:
        """Runs, newest first, at most `limit`; without the suite's text."""
        runs: list[Run] = []
        token = ""
        while len(runs) < limit:
            page = await self._connection.call(
                lambda services: services.runs.ListRuns,
                run_pb2.ListRunsRequest(
                    project=project or self._project,
                    branch=branch,
                    state=convert_values.run_state_to_proto(state) if state else run_pb2.ListRunsRequest().state,
                    page_size=min(limit - len(runs), _MAX_PAGE),
                    page_token=token,
                ),
            )
            runs += [convert.run_from_proto(each) for each in page.runs]
            token = page.next_page_token
            if not token:
                break
        return runs[:limit]

    async def cases(
        self, run_id: str, *, task_id: str = "", outcomes: Iterable[Outcome] = ()
    ) -> AsyncIterator[CaseRecord]:
        """The cases of a run that have a result, in the order of planning, page by page."""
        token = ""
        wanted = [convert_values.outcome_to_proto(each) for each in outcomes]
        while True:
            page = await self._connection.call(
                lambda services: services.runs.ListCases,
                run_pb2.ListCasesRequest(
                    run_id=run_id, task_id=task_id, outcomes=wanted, page_size=_CASES_PAGE, page_token=token
                ),
            )
            for each in page.cases:
                yield convert.case_record_from_proto(each)
            token = page.next_page_token
            if not token:
                return

    async def wait_for_news(self, run_id: str, *, at_most: timedelta) -> None:
        """
        Wait until there is more to tell of a run than that it was submitted. For who has done so with `followed`, and
        has to get ready for `watch` on processors that its first tests want, too. For any other run it does not wait.
        """
        started = self._connection.started.get(run_id)
        if started is not None:
            await started.wait_for_more(at_most)

    def watch(self, run_id: str, *, after_position: int = 0) -> AsyncIterator[Commit]:
        """The run's log after a position: each commit once, in order, without a gap, until the run has ended."""
        return streams.watch_run(self._connection, run_id, after_position=after_position)

    def logs(self, run_id: str, task_id: str, *, shard_id: str = "", follow: bool = False) -> AsyncIterator[LogChunk]:
        """What the task's processes wrote; with `follow` until the task has ended."""
        request = run_pb2.ReadLogsRequest(run_id=run_id, task_id=task_id, shard_id=shard_id, follow=follow)
        return streams.read_logs(self._connection, request)

    async def cancel(
        self,
        run_id: str,
        *,
        task_id: str = "",
        reason: str = "",
        grace: timedelta | None = None,
        user: str = "",
    ) -> bool:
        """
        Stop a run, or one task of it. Idempotent.

        Returns:
            Whether there was something to stop: false when it had ended already.
        """
        request = run_pb2.CancelRunRequest(run_id=run_id, task_id=task_id, reason=reason, user=user)
        if grace is not None:
            request.grace.CopyFrom(convert_values.duration_to_proto(grace))
        response = await self._connection.call(lambda services: services.runs.CancelRun, request)
        return not response.already_ended

    async def invalidate_cache(self, *, project: str = "", task_id: str = "", file: str = "") -> None:
        """
        Have results that were obtained until now not be taken from the cache any more: of a project (else this
        client's), of a task of it, or of a test file of that task. Idempotent.
        """
        request = run_pb2.InvalidateCacheRequest(project=project or self._project, task_id=task_id, file=file)
        await self._connection.call(lambda services: services.runs.InvalidateCache, request)

    async def retry(
        self,
        run_id: str,
        *,
        everything: bool = False,
        secrets: Mapping[str, str] | None = None,
        user: str = "",
        idempotency_key: str = "",
    ) -> Submission:
        """
        Submit a run again: the cases that did not pass, or `everything`.

        Raises:
            WrongState: the run has not ended, or all of it passed.
        """
        response = await self._connection.call(
            lambda services: services.runs.RetryRun,
            run_pb2.RetryRunRequest(
                run_id=run_id,
                all=everything,
                user=user,
                secrets=secrets or {},
                idempotency_key=idempotency_key or new_token(),
            ),
        )
        return submission_from_proto(response)

    async def explain(self, run_id: str, *, task_id: str = "") -> list[TaskExplanation]:
        """Why a task, or every task that has not ended, is not running."""
        request = run_pb2.ExplainRunRequest(run_id=run_id, task_id=task_id)
        response = await self._connection.call(lambda services: services.runs.ExplainRun, request)
        return [convert.explanation_from_proto(each) for each in response.tasks]

    async def explain_once(self, run_id: str) -> list[TaskExplanation]:
        """As `explain`, but without a second try or a word about trouble: for whoever asks again anyway."""
        request = run_pb2.ExplainRunRequest(run_id=run_id)
        response = await self._connection.call_once(lambda services: services.runs.ExplainRun, request)
        return [convert.explanation_from_proto(each) for each in response.tasks]

    async def artifacts(
        self, run_id: str, *, task_id: str = "", url_ttl: timedelta | None = None
    ) -> list[TaskArtifact]:
        """
        The files that a run's tasks left behind, as far as they are kept.

        Args:
            url_ttl: also answer URLs that are good for so long, if the master's blob store has them. A download then
                comes straight from there. Whoever has a URL can read the file.
        """
        request = run_pb2.ListArtifactsRequest(
            run_id=run_id,
            task_id=task_id,
            url_ttl=None if url_ttl is None else convert_values.duration_to_proto(url_ttl),
        )
        response = await self._connection.call(lambda services: services.runs.ListArtifacts, request)
        return [convert.task_artifact_from_proto(each, run_id) for each in response.artifacts]

    async def delete_artifacts(self, artifacts: Iterable[TaskArtifact]) -> int:
        """
        Forget artifacts, of any runs; answers how many were still kept. Idempotent.

        Their content is deleted soon, unless another artifact or a workspace has the same.

        Raises:
            Forbidden: the token may only read.
        """
        by_run: dict[str, list[run_pb2.ArtifactKey]] = {}
        for each in artifacts:
            key = run_pb2.ArtifactKey(shard_id=each.shard_id, path=each.artifact.path)
            by_run.setdefault(each.run_id, []).append(key)
        deleted = 0
        for run_id, keys in by_run.items():
            for first in range(0, len(keys), _DELETED_AT_ONCE):
                request = run_pb2.DeleteArtifactsRequest(
                    run_id=run_id, artifacts=keys[first : first + _DELETED_AT_ONCE]
                )
                response = await self._connection.call(lambda services: services.runs.DeleteArtifacts, request)
                deleted += response.deleted
        return deleted

    async def download(self, artifact: TaskArtifact, directory: Path) -> Path:
        """
        Save an artifact below a directory, as `<task>/<path>`. A file that is there already is replaced whole.

        Raises:
            InvalidRequest: the path would leave the directory.
            NotFound: the master has it no longer.
            CapacityExceeded: the disk is full.
        """
        from fleetest.client.downloads import StoreDownloads, save_artifact

        self._store = self._store or StoreDownloads()
        return await save_artifact(self._connection, self._store, artifact, directory)

    async def workers(self, *, include_offline: bool = False) -> list[Worker]:
        """The cluster's workers."""
        request = fleet_pb2.ListWorkersRequest(include_offline=include_offline)
        response = await self._connection.call(lambda services: services.fleet.ListWorkers, request)
        return [convert.worker_from_proto(each) for each in response.workers]

    async def drain(self, worker_id: str, *, reason: str = "") -> None:
        """Let a worker finish what it runs and take no more. Idempotent."""
        request = fleet_pb2.DrainWorkerRequest(worker_id=worker_id, reason=reason)
        await self._connection.call(lambda services: services.fleet.DrainWorker, request)

    async def create_client_token(
        self,
        *,
        description: str = "",
        lifetime: timedelta | None = None,
        project: str = "",
        access: TokenAccess | None = None,
    ) -> tuple[Token, Secret]:
        """
        A token for clients, and its text, which nobody can ask for again.

        Args:
            lifetime: `None` means that it does not expire.
            project: the only one that it has to do with; empty means all.
            access: `None` means to read and to write.

        Raises:
            Forbidden: the present token is not an administrator's.
        """
        request = fleet_pb2.CreateClientTokenRequest(
            description=description,
            lifetime=convert_values.duration_to_proto(lifetime) if lifetime is not None else None,
            project=project,
            access=convert.token_access_to_proto(access) if access else fleet_pb2.TOKEN_ACCESS_WRITE,
        )
        response = await self._connection.call(lambda services: services.fleet.CreateClientToken, request)
        return convert.token_from_proto(response.token), Secret(response.text)

    async def create_join_token(
        self,
        *,
        description: str = "",
        lifetime: timedelta | None = None,
        worker_id_prefix: str = "",
        required_labels: Mapping[str, str] | None = None,
        most_workers: int = 0,
    ) -> tuple[Token, Secret]:
        """
        A token for workers, and its text, which nobody can ask for again.

        Args:
            lifetime: `None` means that it does not expire.
            worker_id_prefix: how the ids of the workers must begin.
            required_labels: capabilities that they must offer.
            most_workers: how many different ones may join; 0 means any number.

        Raises:
            Forbidden: the present token is not an administrator's.
        """
        request = fleet_pb2.CreateJoinTokenRequest(
            description=description,
            lifetime=convert_values.duration_to_proto(lifetime) if lifetime is not None else None,
            worker_id_prefix=worker_id_prefix,
            required_labels=required_labels or {},
            most_workers=most_workers,
        )
        response = await self._connection.call(lambda services: services.fleet.CreateJoinToken, request)
        return convert.token_from_proto(response.token), Secret(response.text)

    async def tokens(self, *, include_ended: bool = False) -> list[Token]:
        """The tokens that were created, newest first; with those that expired or were revoked when asked for."""
        request = fleet_pb2.ListTokensRequest(include_ended=include_ended)
        response = await self._connection.call(lambda services: services.fleet.ListTokens, request)
        return [convert.token_from_proto(each) for each in response.tokens]

    async def revoke_token(self, token_id: str) -> Token:
        """
        End a token; what is open with it ends within seconds. Idempotent.

        Raises:
            NotFound: there is none of this id.
        """
        request = fleet_pb2.RevokeTokenRequest(token_id=token_id)
        response = await self._connection.call(lambda services: services.fleet.RevokeToken, request)
        return convert.token_from_proto(response.token)

    async def server_info(self) -> ServerInfo:
        """Which master answers, and what it speaks."""
        request = fleet_pb2.GetServerInfoRequest()
        response = await self._connection.call(lambda services: services.fleet.GetServerInfo, request)
        return convert.server_info_from_proto(response)

    async def check_health(self) -> None:
        """
        Make sure that a master serves. No token is needed.

        Raises:
            DependencyUnavailable: none answers, or the one that does is not serving.
        """
        from grpc_health.v1 import health_pb2, health_pb2_grpc  # needed for this alone

        response = await self._connection.call(
            lambda services: health_pb2_grpc.HealthStub(services.channel).Check, health_pb2.HealthCheckRequest()
        )
        if response.status != health_pb2.HealthCheckResponse.SERVING:
            raise DependencyUnavailable("the master answers, but does not serve", hint="look at its log")
