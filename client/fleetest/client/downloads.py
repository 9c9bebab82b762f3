"""Saves artifacts: whole, checked, and nowhere but below the directory that was named."""

from __future__ import annotations

import hashlib
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.error import HTTPError, URLError

from fleetest.client.connection import Connection
from fleetest.client.streams import download_blob
from fleetest.client.values import TaskArtifact
from fleetest.client.whole_files import replacing
from fleetest.common.disk import disk_errors
from fleetest.common.errors import DependencyUnavailable, InvalidRequest
from fleetest.common.regular_files import CHUNK_BYTES
from fleetest.common.threads import in_thread

__all__ = ["StoreDownloads", "artifact_target", "save_artifact"]

_TRIES: Final = 3
_STORE_SECONDS: Final = 10.0
_UNFIT_FOR_A_NAME: Final = re.compile(r"[^\w.,=@+-]+")


def artifact_target(artifact: TaskArtifact, directory: Path) -> Path:
    """
    Where an artifact goes: `<directory>/<task>/<path>`. Shards of one task write to the same folder.

    Raises:
        InvalidRequest: its path would leave the directory.
    """
    path = PurePosixPath(artifact.artifact.path)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in artifact.artifact.path:
        raise InvalidRequest(f"the artifact {artifact.artifact.path!r} has a path that leaves its directory")
    folder = _UNFIT_FOR_A_NAME.sub("_", artifact.task_id).strip(".") or "task"
    target = directory / folder / path
    if not target.parent.resolve().is_relative_to(directory.resolve()):
        raise InvalidRequest(
            f"saving {artifact.artifact.path!r} would follow a symbolic link out of {directory}",
            hint="Choose an empty directory.",
        )
    return target


class StoreDownloads:
    """Downloads straight from the store, as long as it can be reached from here."""

    def __init__(self) -> None:
        self._reachable = True

    async def save(self, artifact: TaskArtifact, target: Path) -> bool:
        """
        Whether it came, whole. Where the store cannot be reached, or what it sends is damaged, the master can be asked.

        Raises:
            OSError: the file cannot be written.
        """
        if not artifact.url or not self._reachable:
            return False
        try:
            await in_thread(_save_from_store, artifact, target)
        except HTTPError as error:
            error.close()  # it has the response
            self._reachable = False
        except (URLError, HTTPException, TimeoutError, ConnectionError, ValueError):
            self._reachable = False
        return self._reachable


async def save_artifact(connection: Connection, store: StoreDownloads, artifact: TaskArtifact, directory: Path) -> Path:
    """
    Raises:
        InvalidRequest, NotFound, CapacityExceeded
        DependencyUnavailable: its content did not come through whole.
    """
    target = artifact_target(artifact, directory)
    with disk_errors(f"the directory {directory}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        failures = connection.failures()
        for attempt in range(1, _TRIES + 1):
            services = connection.services
            try:
                await _save(connection, store, artifact, target)
            except DependencyUnavailable as error:
                if attempt == _TRIES:
                    raise
                await connection.recover(services, failures, error)
            else:
                break
    return target


async def _save(connection: Connection, store: StoreDownloads, artifact: TaskArtifact, target: Path) -> None:
    if await store.save(artifact, target):
        return
    digest = hashlib.sha256()
    with replacing(target) as file:
        async for piece in download_blob(connection, artifact.artifact.digest):
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != artifact.artifact.digest:
            raise DependencyUnavailable(f"the content of {artifact.artifact.path!r} came through damaged")


def _save_from_store(artifact: TaskArtifact, target: Path) -> None:
    """Raises ValueError, URLError, HTTPException, OSError."""
    digest = hashlib.sha256()
    response = urllib.request.urlopen(artifact.url, timeout=_STORE_SECONDS)  # noqa: S310 - a URL of the master's
    with response, replacing(target) as file:
        while piece := response.read(CHUNK_BYTES):
            digest.update(piece)
            file.write(piece)
        if digest.hexdigest() != artifact.artifact.digest:
            raise ValueError("the content came through damaged")
