"""Who needs which blobs, until when, and so who may read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from fleetest.common.clock import Clock
from fleetest.common.results import Artifact
from fleetest.common.workspace import Workspace
from fleetest.master.store.ports import BlobHold, BlobHolds

__all__ = ["Custody", "artifact_name"]

_UPLOADED_FOR: Final = timedelta(days=1)
"""Somebody will say within this time what an upload is for, or it was for nothing."""

_SLACK: Final = timedelta(hours=12)
"""A hold is not prolonged for less than this."""

_REMEMBERED: Final = 100_000
_HELD_AT_ONCE: Final = 1000

_UPLOAD: Final = "upload"
_WORKSPACE: Final = "workspace"


class Custody:
    """
    Keeps blobs for those who need them.

    Args:
        workspaces_for: how long the files of a run are kept after its submission: it can be retried, or looked into.
        artifacts_for: how long artifacts are kept of which the suite does not say it.
    """

    def __init__(self, holds: BlobHolds, clock: Clock, *, workspaces_for: timedelta, artifacts_for: timedelta) -> None:
        self._holds = holds
        self._clock = clock
        self._workspaces_for = workspaces_for
        self._artifacts_for = artifacts_for
        self._until: dict[tuple[str, str], datetime] = {}  # by project and digest; the newest last

    async def uploaded(self, digests: Collection[str], project: str) -> None:
        """They were asked for, or sent: kept until somebody has had time to say what for. No project: nobody's."""
        await self._hold(digests, project, _UPLOAD, _UPLOADED_FOR)

    async def keep_workspace(self, project: str, digest: str, workspace: Workspace) -> None:
        """A run of the project needs these files, and the manifest."""
        digests = [digest, *(file.digest for file in workspace.files if file.digest)]
        await self._hold(digests, project, _WORKSPACE, self._workspaces_for)

    async def keep_artifacts(
        self, run_id: str, project: str, shard_id: str, artifacts: Iterable[Artifact], keep: timedelta
    ) -> None:
        """
        Args:
            keep: zero: as long as is usual.
        """
        until = self._clock.now() + (keep or self._artifacts_for)
        await self._holds.hold(
            [
                BlobHold(
                    digest=artifact.digest,
                    project=project,
                    holder=run_id,
                    name=artifact_name(shard_id, artifact.path),
                    until=until,
                )
                for artifact in artifacts
            ]
        )

    async def of_project(self, digests: Collection[str], project: str) -> frozenset[str]:
        """Those that the project may read."""
        return await self._holds.held(digests, at=self._clock.now(), project=project)

    async def artifacts_of(self, run_id: str) -> Mapping[tuple[str, str], datetime]:
        """What is still kept of a run: until when, by name and digest."""
        now = self._clock.now()
        holds = await self._holds.holds_of(run_id)
        return {(hold.name, hold.digest): hold.until for hold in holds if hold.until > now}

    async def let_go(self, run_id: str, names: Collection[str]) -> int:
        """Nobody needs these artifacts of the run any more. Answers how many there were."""
        now = self._clock.now()
        ended = [hold for hold in await self._holds.holds_of(run_id) if hold.name in names and hold.until > now]
        for first in range(0, len(ended), _HELD_AT_ONCE):
            await self._holds.end_holds(ended[first : first + _HELD_AT_ONCE], at=now)
        return len(ended)

    async def _hold(self, digests: Collection[str], project: str, holder: str, length: timedelta) -> None:
        """What this master holds for long enough is not written again: most files are those of the last run."""
        until = self._clock.now() + length
        enough = until - min(_SLACK, length / 2)
        wanted = [digest for digest in dict.fromkeys(digests) if not self._is_held(project, digest, enough)]
        for first in range(0, len(wanted), _HELD_AT_ONCE):
            some = wanted[first : first + _HELD_AT_ONCE]
            await self._holds.hold(
                [BlobHold(digest=digest, project=project, holder=holder, until=until) for digest in some]
            )
            self._remember(project, some, until)

    def _is_held(self, project: str, digest: str, until: datetime) -> bool:
        known = self._until.get((project, digest))
        return known is not None and known >= until

    def _remember(self, project: str, digests: Sequence[str], until: datetime) -> None:
        for digest in digests:
            self._until.pop((project, digest), None)
            self._until[project, digest] = until
        while len(self._until) > _REMEMBERED:
            del self._until[next(iter(self._until))]


def artifact_name(shard_id: str, path: str) -> str:
    """Of an artifact in its run."""
    return f"{shard_id}/{path}"
