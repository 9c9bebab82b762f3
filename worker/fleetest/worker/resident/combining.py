"""
Combines what sessions have measured of coverage, and reports on it, with the coverage.py of the tests' interpreter.

Started as ``python combining.py CONFIG`` where tests start. CONFIG is a JSON file with `measured` (the directory of
what was handed in: below it one for each process, with a file `root` that says where the workspace was), `workspace`
(where it is now), `report` (the directory to write into), `figures` (the file to write what this came to), `config`
and `fail_under` (of the task; either may be null).

The exit code is 0, or `BELOW` when less was executed than is asked for. `figures` holds `files` (by path: lines and
covered lines in base64, branches, covered branches), `total` and `fail_under` in percent.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any, Dict, Iterable, List

__all__ = ["BELOW", "main"]

BELOW = 3
NOTHING = 4


def main() -> int:
    """Combine and report; answers the exit code."""
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    processes = _processes(config["measured"])
    data_files = [path for process in processes for path in _data_files(process)]
    if not data_files:
        print("nothing was measured")  # noqa: T201 - for the log of the task
        return NOTHING
    # Not before: what is beside this file must not be imported in place of what is installed.
    sys.path[0] = os.getcwd()
    import coverage

    try:
        _combine(_opened(coverage, config), config, processes, data_files)
        return _report(_opened(coverage, config), config)
    except coverage.CoverageException as error:
        print("coverage.py: %s" % error)  # noqa: T201 - likewise
        return 1


def _processes(measured: str) -> List[str]:
    try:
        return sorted(entry.path for entry in os.scandir(measured) if entry.is_dir())
    except OSError:
        return []


def _data_files(process: str) -> Iterable[str]:
    """The newest that a session handed in, which holds all that those before it held; and what others left."""
    own = [name for name in os.listdir(process) if name.startswith(".coverage.")]
    if own:
        yield os.path.join(process, max(own, key=lambda name: int(name.rpartition(".")[2])))
    work = os.path.join(process, "work")
    if os.path.isdir(work):
        yield from (os.path.join(work, name) for name in sorted(os.listdir(work)))


def _opened(coverage: Any, config: Dict[str, Any]) -> Any:
    opened = coverage.Coverage(
        data_file=os.path.join(config["report"], ".coverage"), config_file=config["config"] or True
    )
    # Paths are the same for whoever has the sources somewhere.
    for option, value in (("run:relative_files", True), ("run:parallel", False)):
        opened.set_option(option, value)
    return opened


def _combine(combined: Any, config: Dict[str, Any], processes: List[str], data_files: List[str]) -> None:
    top = os.path.relpath(config["workspace"])
    below = os.path.relpath(os.getcwd(), config["workspace"])
    roots = sorted({_root(process) for process in processes} - {""})
    here = [os.path.normpath(os.path.join(root, below)) for root in roots]
    paths = {"fleetest": [".", *here]}
    if top != ".":
        paths["fleetest-top"] = [top, *roots]
    combined.set_option("paths", dict(paths, **combined.get_option("paths")))
    combined.combine(data_files, strict=True, keep=True)
    combined.save()


def _root(process: str) -> str:
    try:
        with open(os.path.join(process, "root"), encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


def _report(combined: Any, config: Dict[str, Any]) -> int:
    directory = config["report"]
    combined.load()
    combined.xml_report(outfile=os.path.join(directory, "coverage.xml"), ignore_errors=True)
    combined.html_report(directory=os.path.join(directory, "htmlcov"), ignore_errors=True)
    details = config["figures"] + ".details"
    combined.json_report(outfile=details, ignore_errors=True)
    total = combined.report(ignore_errors=True)
    fail_under = config["fail_under"]
    if fail_under is None:
        fail_under = combined.get_option("report:fail_under") or 0
    with open(details, encoding="utf-8") as file:
        files = json.load(file)["files"]
    figures = {
        "total": total,
        "fail_under": fail_under,
        "files": {_name(path, config["workspace"]): _figures(file) for path, file in files.items()},
    }
    with open(config["figures"], "w", encoding="utf-8") as file:
        json.dump(figures, file)
    return BELOW if _is_below(total, fail_under, combined.get_option("report:precision") or 0) else 0


def _is_below(total: float, fail_under: float, precision: int) -> bool:
    """As coverage.py decides it: what is rounded to 100 is not 100."""
    if fail_under == 100 and total != 100:  # noqa: PLR2004 - percent
        return True
    return bool(round(total, precision) < fail_under)


def _name(path: str, workspace: str) -> str:
    real = os.path.realpath(path)
    top = os.path.join(os.path.realpath(workspace), "")
    return real[len(top) :] if real.startswith(top) else path


def _figures(file: Dict[str, Any]) -> List[Any]:
    covered, missing = file["executed_lines"], file["missing_lines"]
    summary = file["summary"]
    return [
        _bits([*covered, *missing]),
        _bits(covered),
        summary.get("num_branches", 0),
        summary.get("covered_branches", 0),
    ]


def _bits(lines: List[int]) -> str:
    """A set of lines as `fleetest.common.coverage` has it, as base64."""
    content = bytearray(max(lines, default=0) // 8 + 1)
    for line in lines:
        content[line // 8] |= 1 << line % 8
    return base64.b64encode(bytes(content)).decode("ascii")


if __name__ == "__main__":
    sys.exit(main())
