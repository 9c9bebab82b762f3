"""The client for programs that do not use asyncio: the asynchronous one, run in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fleetest.client.async_client import AsyncClient
from fleetest.client.connection import Persistence
from fleetest.client.events import Commit
from fleetest.client.submission import Submission
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
from fleetest.common.settings import Secret
from fleetest.common.states import Outcome, RunState
from fleetest.common.tls import ClientTls
from fleetest.common.version_control import VersionControl
from fleetest.common.workspace import Workspace

if TYPE_CHECKING:
    from fleetest.client.imports import ReportSource
    from fleetest.client.uploads import UploadReport

__all__ = ["Client"]

_Answer = TypeVar("_Answer")


class Client:
    """
    A cluster; each method is `AsyncClient`'s of the same name, and waits for its answer.

    Use it as a context manager, or `close` it.
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
        self._client = AsyncClient(
            address, token=token, tls=tls, project=project, persistence=persistence, on_trouble=on_trouble
        )
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleetest-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let connection and thread go. Idempotent."""
        if self._loop.is_closed():
            return
        self._wait(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def upload(
        self, workspace: Workspace, root: Path, *, progress: Callable[[int, int], None] | None = None
    ) -> UploadReport:
        return self._wait(self._client.upload(workspace, root, progress=progress))

    def submit(
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
        return self._wait(
            self._client.submit(
                suite_text,
                source=source,
                workspace_digest=workspace_digest,
                project=project,
                version_control=version_control,
                secrets=secrets,
                labels=labels,
                user=user,
                executor=executor,
                environment=environment,
                environment_settings=environment_settings,
                supersede=supersede,
                fail_fast=fail_fast,
                idempotency_key=idempotency_key,
                followed=followed,
            )
        )

    def import_run(
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
        return self._wait(
            self._client.import_run(
                reports,
                name=name,
                project=project,
                version_control=version_control,
                labels=labels,
                user=user,
                idempotency_key=idempotency_key,
            )
        )

    def get_run(self, run_id: str = "latest") -> Run:
        return self._wait(self._client.get_run(run_id))

    def list_runs(
        self, *, project: str = "", branch: str = "", state: RunState | None = None, limit: int = 50
    ) -> list[Run]:
        return self._wait(self._client.list_runs(project=project, branch=branch, state=state, limit=limit))

    def cases(self, run_id: str, *, task_id: str = "", outcomes: Iterable[Outcome] = ()) -> Iterator[CaseRecord]:
        return self._each(self._client.cases(run_id, task_id=task_id, outcomes=outcomes))

    def wait_for_news(self, run_id: str, *, at_most: timedelta) -> None:
        self._wait(self._client.wait_for_news(run_id, at_most=at_most))

    def watch(self, run_id: str, *, after_position: int = 0) -> Iterator[Commit]:
        return self._each(self._client.watch(run_id, after_position=after_position))

    def logs(self, run_id: str, task_id: str, *, shard_id: str = "", follow: bool = False) -> Iterator[LogChunk]:
        return self._each(self._client.logs(run_id, task_id, shard_id=shard_id, follow=follow))

    def cancel(
        self,
        run_id: str,
        *,
        task_id: str = "",
        reason: str = "",
        grace: timedelta | None = None,
        user: str = "",
    ) -> bool:
        return self._wait(self._client.cancel(run_id, task_id=task_id, reason=reason, grace=grace, user=user))

    def invalidate_cache(self, *, project: str = "", task_id: str = "", file: str = "") -> None:
        self._wait(self._client.invalidate_cache(project=project, task_id=task_id, file=file))

    def retry(
        self,
        run_id: str,
        *,
        everything: bool = False,
        secrets: Mapping[str, str] | None = None,
        user: str = "",
        idempotency_key: str = "",
    ) -> Submission:
        return self._wait(
            self._client.retry(
                run_id, everything=everything, secrets=secrets, user=user, idempotency_key=idempotency_key
            )
        )

    def explain(self, run_id: str, *, task_id: str = "") -> list[TaskExplanation]:
        return self._wait(self._client.explain(run_id, task_id=task_id))

    def explain_once(self, run_id: str) -> list[TaskExplanation]:
        return self._wait(self._client.explain_once(run_id))

    def artifacts(self, run_id: str, *, task_id: str = "", url_ttl: timedelta | None = None) -> list[TaskArtifact]:
        return self._wait(self._client.artifacts(run_id, task_id=task_id, url_ttl=url_ttl))

    def delete_artifacts(self, artifacts: Iterable[TaskArtifact]) -> int:
        return self._wait(self._client.delete_artifacts(artifacts))

    def download(self, artifact: TaskArtifact, directory: Path) -> Path:
        return self._wait(self._client.download(artifact, directory))

    def workers(self, *, include_offline: bool = False) -> list[Worker]:
        return self._wait(self._client.workers(include_offline=include_offline))

    def drain(self, worker_id: str, *, reason: str = "") -> None:
        self._wait(self._client.drain(worker_id, reason=reason))

    def create_client_token(
        self,
        *,
        description: str = "",
        lifetime: timedelta | None = None,
        project: str = "",
        access: TokenAccess = TokenAccess.WRITE,
    ) -> tuple[Token, Secret]:
        return self._wait(
            self._client.create_client_token(description=description, lifetime=lifetime, project=project, access=access)
        )

    def create_join_token(
        self,
        *,
        description: str = "",
        lifetime: timedelta | None = None,
        worker_id_prefix: str = "",
        required_labels: Mapping[str, str] | None = None,
        most_workers: int = 0,
    ) -> tuple[Token, Secret]:
        return self._wait(
            self._client.create_join_token(
                description=description,
                lifetime=lifetime,
                worker_id_prefix=worker_id_prefix,
                required_labels=required_labels,
                most_workers=most_workers,
            )
        )

    def tokens(self, *, include_ended: bool = False) -> list[Token]:
        return self._wait(self._client.tokens(include_ended=include_ended))

    def revoke_token(self, token_id: str) -> Token:
        return self._wait(self._client.revoke_token(token_id))

    def server_info(self) -> ServerInfo:
        return self._wait(self._client.server_info())

    def check_health(self) -> None:
        self._wait(self._client.check_health())

    def _wait(self, answer: Coroutine[Any, Any, _Answer]) -> _Answer:
        future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt in the waiting thread ends the call too
            raise

    def _each(self, answers: AsyncIterator[_Answer]) -> Iterator[_Answer]:
        """The items one by one, as they come; leaving the loop early ends the stream."""

        async def following() -> _Answer:
            return await anext(answers)

        async def end() -> None:
            close = getattr(answers, "aclose", None)
            if close is not None:
                await close()

        try:
            while True:
                try:
                    yield self._wait(following())
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.is_closed():
                self._wait(end())
