"""Runs and cases on MongoDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pymongo import DESCENDING, ReplaceOne

from fleetest.common.states import Outcome, RunState
from fleetest.master.store.mongo_database import MongoDatabase, insert_new, repeated
from fleetest.master.store.mongo_schema import Document
from fleetest.master.store.ports import CaseRow, RunQuery, RunRow
from fleetest.master.store.values import from_json, from_microseconds, to_json, to_microseconds

__all__ = ["MongoProjections"]

_RUNS: Final = "runs"
_CASES: Final = "cases"

_FOUND_RUNS: Final = 10
# No text is greater than one that begins alike and goes on with the last code point.
_LAST_CODE_POINT: Final = "\U0010ffff"


class MongoProjections:
    """The first half of `Projections` on MongoDB; the other is `MongoHistory`."""

    _database: MongoDatabase

    async def save_runs(self, runs: Sequence[RunRow], cases: Sequence[CaseRow] = ()) -> None:
        if cases:
            await self.save_cases(cases)
        documents = [_to_run(run) for run in runs]
        replacements = [_replacement(document) for document in documents]
        with self._database.work():
            collection = self._database.collection(_RUNS)
            replaced = await repeated(lambda: collection.bulk_write(replacements, ordered=False))
            if replaced.matched_count < len(documents):  # some are new, or stand with a greater position
                await self._save(_RUNS, documents)

    async def save_cases(self, cases: Sequence[CaseRow]) -> None:
        newest: dict[tuple[str, str, str], CaseRow] = {}
        for case in cases:  # one write for each case: nothing promises the order of those in a bulk
            key = case.run_id, case.task_id, case.case_id
            if key not in newest or case.position >= newest[key].position:
                newest[key] = case
        with self._database.work():
            await self._save(_CASES, [_to_case(case) for case in newest.values()])

    async def get_run(self, run_id: str) -> RunRow | None:
        found = await self._runs({"_id": run_id}, limit=1)
        return found[0] if found else None

    async def find_runs(self, prefix: str) -> Sequence[RunRow]:
        return await self._runs({"_id": {"$gte": prefix, "$lte": prefix + _LAST_CODE_POINT}}, limit=_FOUND_RUNS)

    async def list_runs(self, query: RunQuery) -> Sequence[RunRow]:
        wanted: dict[str, Any] = {
            "project": query.project,
            "branch": query.branch,
            "suite_name": query.suite_name,
            "state": query.state,
        }
        conditions: dict[str, Any] = {field: str(value) for field, value in wanted.items() if value}
        if query.before_run_id:
            conditions["_id"] = {"$lt": query.before_run_id}
        return await self._runs(conditions, limit=query.limit)

    async def list_cases(
        self,
        run_id: str,
        *,
        task_id: str = "",
        outcomes: frozenset[Outcome] = frozenset(),
        after: tuple[str, int] | None = None,
        limit: int = 1000,
    ) -> Sequence[CaseRow]:
        conditions: dict[str, Any] = {"run_id": run_id}
        if task_id:
            conditions["task_id"] = task_id
        if outcomes:
            conditions["outcome"] = {"$in": sorted(map(str, outcomes))}
        if after:
            after_task, after_place = after
            conditions["$or"] = [
                {"task_id": {"$gt": after_task}},
                {"task_id": after_task, "place": {"$gt": after_place}},
            ]
        with self._database.work():
            found = self._database.collection(_CASES).find(conditions).sort({"task_id": 1, "place": 1}).limit(limit)
            return [_from_case(document) for document in await found.to_list()]

    async def _runs(self, conditions: Mapping[str, Any], *, limit: int) -> list[RunRow]:
        with self._database.work():
            found = self._database.collection(_RUNS).find(conditions).sort("_id", DESCENDING).limit(limit)
            return [_from_run(document) for document in await found.to_list()]

    async def _save(self, name: str, documents: Sequence[Document]) -> None:
        """
        Insert what is new, and replace what stands with a position that is not greater.

        Nothing is ever deleted, so a duplicate is there still when it is replaced.
        """
        collection = self._database.collection(name)
        replacements = [_replacement(documents[index]) for index in await insert_new(collection, documents)]
        if replacements:
            await repeated(lambda: collection.bulk_write(replacements, ordered=False))


def _replacement(document: Document) -> ReplaceOne[Document]:
    return ReplaceOne({"_id": document["_id"], "position": {"$lte": document["position"]}}, document)


def _to_run(run: RunRow) -> Document:
    return {
        "_id": run.run_id,
        "project": run.project,
        "suite_name": run.suite_name,
        "branch": run.branch,
        "state": str(run.state),
        "submitted_at_us": to_microseconds(run.submitted_at),
        "ended_at_us": None if run.ended_at is None else to_microseconds(run.ended_at),
        "position": run.position,
        "body": to_json(run.body),
    }


def _from_run(document: Document) -> RunRow:
    ended_at_us = document["ended_at_us"]
    return RunRow(
        run_id=document["_id"],
        project=document["project"],
        suite_name=document["suite_name"],
        branch=document["branch"],
        state=RunState(document["state"]),
        submitted_at=from_microseconds(document["submitted_at_us"]),
        ended_at=None if ended_at_us is None else from_microseconds(ended_at_us),
        position=document["position"],
        body=from_json(document["body"]),
    )


def _to_case(case: CaseRow) -> Document:
    return {
        "_id": {"run_id": case.run_id, "task_id": case.task_id, "case_id": case.case_id},
        "run_id": case.run_id,
        "task_id": case.task_id,
        "place": case.index,
        "outcome": str(case.outcome),
        "flaky": case.flaky,
        "position": case.position,
        "body": to_json(case.body),
        "result": case.result,
    }


def _from_case(document: Document) -> CaseRow:
    return CaseRow(
        run_id=document["run_id"],
        task_id=document["task_id"],
        case_id=document["_id"]["case_id"],
        index=document["place"],
        outcome=Outcome(document["outcome"]),
        flaky=document["flaky"],
        position=document["position"],
        body=from_json(document["body"]),
        result=document.get("result", b""),
    )
