"""The artifacts of runs: listed, given out by URL, deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

import structlog

from fleetest.common.blobs import BlobStore
from fleetest.common.errors import InvalidRequest, WrongState
from fleetest.common.results import Artifact
from fleetest.master.access.principals import caller
from fleetest.master.blobs.custody import Custody, artifact_name
from fleetest.master.runs.summary import RunSummary

__all__ = ["MOST_DELETED", "ArtifactShelf", "KeptArtifact"]

_log = structlog.get_logger()

MOST_DELETED: Final = 1000
"""In one request."""

_LONGEST_URL: Final = timedelta(days=7)  # what S3 and Google allow at most


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptArtifact:
    """
    An artifact that can be read now.

    Args:
        url: straight from the store; empty where there is none. Whoever has it can read the file.
    """

    task_id: str
    shard_id: str
    artifact: Artifact
    url: str = field(default="", repr=False)


class ArtifactShelf:
    """
    What tasks left behind, as far as it is kept.

    Args:
        on_delete: some content may not be needed any more.
    """

    def __init__(self, custody: Custody, blobs: BlobStore, on_delete: Callable[[], None]) -> None:
        self._custody = custody
        self._blobs = blobs
        self._on_delete = on_delete

    async def list(
        self, run: RunSummary, *, task_id: str = "", url_ttl: timedelta | None = None
    ) -> Sequence[KeptArtifact]:
        """
        Those of one task, or all; with URLs when a time is given for which they are to be good.

        Raises:
            InvalidRequest: no URL can be good for so long.
        """
        if url_ttl is not None and not timedelta() < url_ttl <= _LONGEST_URL:
            raise InvalidRequest("a URL is good for more than nothing, and at most 7 days")
        until = await self._custody.artifacts_of(run.run_id)
        kept = []
        for task in run.tasks:
            for each in task.artifacts if task_id in {"", task.task_id} else ():
                expires_at = until.get((artifact_name(each.shard_id, each.artifact.path), each.artifact.digest))
                if expires_at is None and each.artifact.created_at is not None:
                    continue  # it expired, or was deleted; those from before this was kept have no time
                artifact = replace(each.artifact, expires_at=expires_at)
                kept.append(KeptArtifact(task_id=task.task_id, shard_id=each.shard_id, artifact=artifact))
        return kept if url_ttl is None else await self._signed(kept, url_ttl)

    async def delete(self, run_id: str, artifacts: Sequence[tuple[str, str]]) -> int:
        """
        Forget artifacts by shard and path; answers how many were still kept. Idempotent.

        Their content goes soon, unless another artifact or a workspace has the same.
        """
        deleted = await self._custody.let_go(run_id, {artifact_name(shard_id, path) for shard_id, path in artifacts})
        if deleted:
            _log.info("artifacts_deleted", run_id=run_id, count=deleted, by=caller().name)
            self._on_delete()
        return deleted

    async def _signed(self, kept: Sequence[KeptArtifact], url_ttl: timedelta) -> Sequence[KeptArtifact]:
        try:
            return [replace(each, url=await self._blobs.sign(each.artifact.digest, url_ttl)) for each in kept]
        except WrongState:
            return kept
