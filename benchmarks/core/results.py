"""The results of a row as a JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.core.figures import Aim, Better, Figure, Side

__all__ = ["Result", "read_results", "write_result"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    What a row found.

    Args:
        began: when, ISO 8601.
        load: of the machine as the row began, which should have been little.
    """

    row: str
    title: str
    began: str
    seconds: float
    quick: bool
    rounds: int
    load: float
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    figures: Sequence[Figure]


def write_result(result: Result, directory: Path) -> Path:
    """Replaces what an earlier measurement of the row left there."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.row}.json"
    path.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    return path


def read_results(directory: Path, rows: Sequence[str]) -> Sequence[Result]:
    """Those of these rows that have been measured, in their order."""
    paths = [directory / f"{row}.json" for row in rows]
    return [_result(json.loads(path.read_text())) for path in paths if path.exists()]


def _result(document: dict[str, Any]) -> Result:
    return Result(**{**document, "figures": [_figure(each) for each in document["figures"]]})


def _figure(document: dict[str, Any]) -> Figure:
    return Figure(
        name=document["name"],
        unit=document["unit"],
        better=Better(document["better"]),
        ours=_side(document["ours"]),
        peers=tuple(_side(each) for each in document["peers"]),
        aims=tuple(Aim(**each) for each in document["aims"]),
        notes=tuple(document["notes"]),
    )


def _side(document: dict[str, Any]) -> Side:
    return Side(name=document["name"], samples=tuple(document["samples"]), missing=document["missing"])
