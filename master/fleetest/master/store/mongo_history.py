"""What earlier runs teach of cases and tasks, on MongoDB."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from bson.max_key import MaxKey
from bson.min_key import MinKey
from pymongo import UpdateOne

from fleetest.common.results import ResourceUsage
from fleetest.common.states import Outcome
from fleetest.master.store.mongo_database import MongoDatabase, insert_new, repeated
from fleetest.master.store.mongo_schema import Document
from fleetest.master.store.ports import USAGES_KEPT, CaseHistory

__all__ = ["MongoHistory"]

_MICROSECOND: Final = timedelta(microseconds=1)

_CASES: Final = "case_history"
_TASKS: Final = "task_usage"


class MongoHistory:
    """
    The second half of `Projections` on MongoDB; the first is `MongoProjections`.

    What is known already is updated by pipelines, in which the server makes the new value of the old one in one step.
    """

    _database: MongoDatabase

    async def save_history(self, project: str, task: str, cases: Sequence[CaseHistory]) -> None:
        # Done again after a broken connection, a duration moves once more towards the same.
        documents = [_to_history(project, task, case) for case in cases]
        await self._learn(_CASES, documents, _moved_half_way)

    async def load_history(self, project: str, task: str) -> Mapping[str, CaseHistory]:
        of_task = {
            "$gt": {"project": project, "task": task, "case_id": MinKey()},
            "$lt": {"project": project, "task": task, "case_id": MaxKey()},
        }
        with self._database.work():
            found = await self._database.collection(_CASES).find({"_id": of_task}).to_list()
        return {document["_id"]["case_id"]: _from_history(document) for document in found}

    async def save_usage(self, project: str, run_id: str, usages: Mapping[str, ResourceUsage]) -> None:
        documents = [
            {"_id": {"project": project, "task": task}, "runs": [_to_usage(run_id, usage)]}
            for task, usage in usages.items()
        ]
        await self._learn(_TASKS, documents, _newest_kept)

    async def load_usage(self, project: str, tasks: Sequence[str]) -> Mapping[str, Sequence[ResourceUsage]]:
        keys = [{"project": project, "task": task} for task in tasks]
        with self._database.work():
            found = await self._database.collection(_TASKS).find({"_id": {"$in": keys}}).to_list()
        return {document["_id"]["task"]: [_from_usage(each) for each in document["runs"]] for document in found}

    async def _learn(
        self, name: str, documents: Sequence[Document], combined: Callable[[Document], list[dict[str, Any]]]
    ) -> None:
        """Insert what is new; of the others, `combined` makes an update of what was to be inserted."""
        collection = self._database.collection(name)
        with self._database.work():
            known = [documents[index] for index in await insert_new(collection, documents)]
            updates = [UpdateOne({"_id": document["_id"]}, combined(document)) for document in known]
            if updates:
                await repeated(lambda: collection.bulk_write(updates, ordered=False))


def _moved_half_way(document: Document) -> list[dict[str, Any]]:
    def half_way(name: str) -> dict[str, Any]:
        return {"$divide": [{"$add": [{"$ifNull": [f"${name}", 0]}, document[name]]}, 2]}

    moved = {"duration_us": {"$toLong": {"$trunc": half_way("duration_us")}}, "failing": half_way("failing")}
    replaced = {name: {"$literal": document[name]} for name in ("outcome", "worker_id", "measured_us")}
    return [{"$set": moved | replaced}]


def _newest_kept(document: Document) -> list[dict[str, Any]]:
    (usage,) = document["runs"]
    others = {"$filter": {"input": "$runs", "cond": {"$ne": ["$$this.run_id", {"$literal": usage["run_id"]}]}}}
    together = {"$concatArrays": [others, [{"$literal": usage}]]}
    newest_first = {"$sortArray": {"input": together, "sortBy": {"run_id": -1}}}
    return [{"$set": {"runs": {"$slice": [newest_first, USAGES_KEPT]}}}]


def _to_history(project: str, task: str, case: CaseHistory) -> Document:
    return {
        "_id": {"project": project, "task": task, "case_id": case.case_id},
        "duration_us": case.duration // _MICROSECOND,
        "outcome": str(case.outcome),
        "worker_id": case.worker_id,
        "measured_us": case.measured // _MICROSECOND,
        "failing": case.failing,
    }


def _from_history(document: Document) -> CaseHistory:
    return CaseHistory(
        case_id=document["_id"]["case_id"],
        duration=document["duration_us"] * _MICROSECOND,
        outcome=Outcome(document["outcome"]),
        worker_id=document.get("worker_id", ""),
        measured=document.get("measured_us", 0) * _MICROSECOND,
        failing=float(document.get("failing", 0)),
    )


def _to_usage(run_id: str, usage: ResourceUsage) -> Document:
    return {
        "run_id": run_id,
        "cpu_time_us": usage.cpu_time // _MICROSECOND,
        "wall_time_us": usage.wall_time // _MICROSECOND,
        "peak_memory_bytes": usage.peak_memory_bytes,
        "disk_read_bytes": usage.disk_read_bytes,
        "disk_written_bytes": usage.disk_written_bytes,
    }


def _from_usage(document: Document) -> ResourceUsage:
    return ResourceUsage(
        cpu_time=document["cpu_time_us"] * _MICROSECOND,
        wall_time=document["wall_time_us"] * _MICROSECOND,
        peak_memory_bytes=int(document["peak_memory_bytes"]),
        disk_read_bytes=int(document["disk_read_bytes"]),
        disk_written_bytes=int(document["disk_written_bytes"]),
    )
