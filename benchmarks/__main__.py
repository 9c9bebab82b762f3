"""
Measures Fleetest beside its peers.

::

    python -m benchmarks [--quick] [--rounds N] [ROW ...]

prints each figure with its peers', and leaves it as JSON in `.cache/benchmarks`; `python -m benchmarks.page` makes
`docs/benchmarks.md` of that. A machine that does something else meanwhile spoils it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.core.bench import ROOT, Bench
from benchmarks.core.figures import Figure
from benchmarks.core.machine import load, machine, versions
from benchmarks.core.results import Result, write_result
from benchmarks.core.table import table

__all__ = ["RESULTS", "ROWS"]

ROWS: Final = (
    "noop",
    "round_trip",
    "backlog",
    "pytest_trivial",
    "pytest_skewed",
    "pytest_real",
    "containers",
    "start",
    "memory",
    "master_cpu",
)
"""Modules of `benchmarks.rows`."""

RESULTS: Final = ROOT / ".cache" / "benchmarks"

_QUIET: Final = 1.5
"""A load above which figures are not to be trusted."""


def main() -> None:
    """Measure what the command line names, or everything."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Fleetest beside its peers.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all when none is named")
    parser.add_argument("--quick", action="store_true", help="everything small, to see that it works")
    parser.add_argument("--rounds", type=int, help="how often each side is measured [default: 5, with --quick 2]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where JSON files go")
    options = parser.parse_args()
    wanted = [row.replace("-", "_") for row in options.rows] or ROWS
    if unknown := [row for row in wanted if row not in ROWS]:
        parser.error(f"there is no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    bench = Bench(quick=options.quick, rounds=options.rounds or (2 if options.quick else 5))
    asyncio.run(_measure(bench, wanted, options.results))


async def _measure(bench: Bench, rows: Sequence[str], directory: Path) -> None:
    about, parts = machine(), versions(bench)
    print(", ".join(f"{name} {value}" for name, value in {**about, **parts}.items()))
    for row in rows:
        module = importlib.import_module(f"benchmarks.rows.{row}")
        began, start, load_before = datetime.now(UTC), time.perf_counter(), load()
        if load_before > _QUIET:
            bench.say(f"the machine is busy (load {load_before:.1f}): do not trust what follows")
        figures: Sequence[Figure] = await module.measure(bench)
        result = Result(
            row=row,
            title=(module.__doc__ or row).strip().splitlines()[0],
            began=began.isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - start, 1),
            quick=bench.quick,
            rounds=bench.rounds,
            load=round(load_before, 2),
            machine=about,
            versions=parts,
            figures=figures,
        )
        write_result(result, directory)
        for figure in figures:
            print("\n".join(table(figure)), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
