"""Keeps what load tests measured as files: figures for people, and the histograms that these come from."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final

import structlog

from fleetest.common.blobs import BlobStore
from fleetest.common.digest import digest_of
from fleetest.common.errors import FleetestError
from fleetest.common.results import Artifact
from fleetest.master.blobs.custody import Custody
from fleetest.master.runs.measuring import ALL, Measured, Measurement
from fleetest.master.runs.state import RunStatus
from fleetest.master.runs.task_status import shard_id

__all__ = ["LOAD_RECORD", "LoadRecords", "record_of"]

LOAD_RECORD: Final = "fleetest-load.json"
"""The name of the artifact."""

_PERCENTILES: Final = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 100.0)
_MILLISECOND: Final = timedelta(milliseconds=1)

_log = structlog.get_logger()


class LoadRecords:
    """Use one for all runs."""

    def __init__(self, blobs: BlobStore, custody: Custody) -> None:
        self._blobs = blobs
        self._custody = custody

    async def keep(self, status: RunStatus, task_id: str) -> Artifact | None:
        """Store what a load test measured so far; `None` when that is nothing, or when it cannot be stored."""
        task = status.tasks.get(task_id)
        if task is None or task.measured is None:
            return None
        content = json.dumps(record_of(task_id, task.measured), indent=1).encode()
        artifact = Artifact(
            path=LOAD_RECORD,
            digest=digest_of(content),
            size_bytes=len(content),
            media_type="application/json",
            attempt=1,
        )
        project, keep, first = status.request.project, task.task.artifacts_keep, shard_id(task_id, 0)
        try:
            await self._custody.keep_artifacts(status.run_id, project, first, [artifact], keep)
            await self._blobs.put({artifact.digest: content})
        except FleetestError as error:
            _log.warning("load_not_recorded", run_id=status.run_id, task_id=task_id, error=error.message)
            return None
        return artifact


def record_of(task_id: str, measurement: Measurement) -> dict[str, Any]:
    """The content of the file. Times are in milliseconds; histograms as HdrHistogram encodes them, in microseconds."""
    whole = measurement.whole
    return {
        "task": task_id,
        "generators": measurement.generators,
        "seconds": whole.length.total_seconds(),
        "seconds_left_out": measurement.told - whole.seconds,
        "arrivals": whole.arrivals,
        "offered_per_second": whole.offered,
        "longest_lag_ms": whole.lag / _MILLISECOND,
        "all": _figures(whole, ALL),
        "requests": {name: _figures(whole, name) for name in whole.requests},
    }


def _figures(whole: Measured, request: str) -> dict[str, Any]:
    row, latencies = whole.row(request), whole.latencies(request)
    percentiles = latencies.percentiles(_PERCENTILES)
    return {
        "requests": row.requests,
        "errors": row.errors,
        "throughput_per_second": row.throughput,
        "mean_ms": latencies.mean * 1000,
        **{f"p{percent:g}_ms": value * 1000 for percent, value in zip(_PERCENTILES, percentiles, strict=True)},
        "histogram": latencies.encode(),
    }
