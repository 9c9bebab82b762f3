"""
Writes `docs/benchmarks.md` and its pictures out of what `python -m benchmarks` measured.

::

    python -m benchmarks.page [--results DIRECTORY] [--docs DIRECTORY]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.__main__ import RESULTS, ROWS
from benchmarks.core.bars import bars
from benchmarks.core.bench import ROOT
from benchmarks.core.figures import Figure
from benchmarks.core.results import Result, read_results
from benchmarks.core.table import number, verdict

__all__ = ["write_page"]

_INTRODUCTION: Final = """\
# Benchmarks

<!-- Written by `python -m benchmarks.page`; change that, not this. -->

Fleetest beside its peers, each row measured in one run on one machine. Sides take turns (A B C A B C), so that a
machine whose speed drifts slows all of them alike; a figure is the median of its rounds, a ratio the median of the
ratios round by round. Nothing is simplified on our side: the durable store is on, and every result is checked.

`make bench` measures everything, `make bench-NAME` one row. Both leave JSON in `.cache/benchmarks`, out of which
`make bench-page` writes this page. Meanwhile the machine must have nothing else to do. Where the time goes,
[profiling](profiling.md) tells.
"""

_EMPTY: Final = """
No figures are published here yet: they have to be measured on a quiet machine first.
"""


def write_page(results: Sequence[Result], docs: Path) -> None:
    """Replace the page, and every picture of it."""
    pictures = docs / "benchmarks"
    for stale in pictures.glob("*.svg"):
        stale.unlink()
    lines = [_INTRODUCTION]
    if results:
        pictures.mkdir(exist_ok=True)
        lines += _aims(results)
    else:
        lines.append(_EMPTY)
    for result in results:
        lines += [f"## {result.title.removesuffix('.')}", "", *_warnings(result)]
        for index, figure in enumerate(result.figures):
            picture = pictures / f"{result.row}-{index + 1}.svg"
            picture.write_text(bars(figure))
            lines += _section(figure, f"{pictures.name}/{picture.name}")
    if results:
        lines += _circumstances(results)
    (docs / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")


def _aims(results: Sequence[Result]) -> Iterator[str]:
    yield from ("## Aims", "", "| work | ours | best peer | aim | |", "|---|---|---|---|---|")
    for result in results:
        for figure in result.figures:
            best = figure.best
            peer = "–" if best is None else f"{number(best.median)} {figure.unit} ({best.name})"
            ours = f"{number(figure.ours.median)} {figure.unit}" if figure.ours.samples else figure.ours.missing
            for aim in figure.aims:
                yield f"| {figure.name} | {ours} | {peer} | {aim.words(figure)} | {verdict(figure.reached(aim))} |"
    yield ""


def _warnings(result: Result) -> Iterator[str]:
    if result.quick:
        yield from ("*Measured with `--quick`: this shows that it works, and nothing else.*", "")


def _section(figure: Figure, picture: str) -> Iterator[str]:
    yield from (f"**{figure.name}** ({figure.unit}, {figure.better} is better)", "", f"![{figure.name}]({picture})", "")
    yield from ("| | median | least | most | ours to theirs |", "|---|---|---|---|---|")
    for side in figure.sides:
        if not side.samples:
            yield f"| {side.name} | – | – | – | {side.missing} |"
            continue
        ratio = None if side is figure.ours else figure.ratio(side)
        numbers = " | ".join(number(value) for value in (side.median, min(side.samples), max(side.samples)))
        yield f"| {side.name} | {numbers} | {'' if ratio is None else f'{ratio:.2f}'} |"
    yield ""
    for note in figure.notes:
        yield from (note, "")


def _circumstances(results: Sequence[Result]) -> Iterator[str]:
    last = results[-1]
    yield from ("## Where this was measured", "", "| | |", "|---|---|")
    for name, value in {**last.machine, **last.versions}.items():
        yield f"| {name} | {value} |"
    yield from ("", "| row | measured | Fleetest | rounds | seconds | load before |", "|---|---|---|---|---|---|")
    for each in results:
        ours = each.versions.get("Fleetest", "")
        yield f"| {each.row} | {each.began} | {ours} | {_rounds(each)} | {each.seconds:.0f} | {each.load:.1f} |"


def _rounds(result: Result) -> str:
    """As many as there are samples: rows that vary little, or take long, make do with fewer than the rest."""
    numbers = sorted({len(side.samples) for figure in result.figures for side in figure.sides if side.samples})
    return " to ".join(str(number) for number in dict.fromkeys([*numbers[:1], *numbers[-1:]]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    write_page(read_results(options.results, ROWS), options.docs)


if __name__ == "__main__":
    main()
