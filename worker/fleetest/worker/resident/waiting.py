"""
Waiting with pytest imported, until there is a run to begin.

What is imported before a run's files are there must be what would be imported after. So nothing may come from the
workspace, and no name that was looked for may be found there when the run begins: such a session is unfit, and another
one is started. Once it has begun, it is in the same state as one that was started then.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Dict, List, Set, Tuple

__all__ = ["Watch", "wait"]

_OF_EVERY_START = ("sitecustomize", "usercustomize")


class Watch:
    """Notes, from now on, which names nobody could import; and what else a start depends on."""

    def __init__(self, workspace: str) -> None:
        self._workspace = os.path.join(os.path.realpath(workspace), "")
        self._inside: Dict[str, bool] = {}
        self._absent: Set[str] = set(_OF_EVERY_START)
        self._path_files = self._read_path_files()
        sys.meta_path.append(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """As a finder that is asked last, and never finds anything."""
        del target
        if path is None:
            self._absent.add(name)

    def stop(self) -> None:
        """Note nothing more."""
        sys.meta_path.remove(self)

    def unfit(self) -> str:
        """Why a start now could come to something else; empty when it could not."""
        if "coverage" in sys.modules:
            return "coverage has begun to measure"
        loaded = list(sys.modules.items())
        for name, module in loaded:
            if self._is_inside(os.path.dirname(getattr(module, "__file__", None) or "")):
                return name + " comes from the workspace"
        names = self._absent.union(name.partition(".")[0] for name, _ in loaded)
        for directory in filter(self._is_inside, sys.path):
            for entry in _listed(directory):
                if entry.partition(".")[0] in names:
                    return entry + " in the workspace would be found first"
        if self._read_path_files() != self._path_files:
            return "other directories are on the path"
        return ""

    def _is_inside(self, directory: str) -> bool:
        if directory not in self._inside:
            real = os.path.join(os.path.realpath(directory), "")
            self._inside[directory] = bool(directory) and real.startswith(self._workspace)
        return self._inside[directory]

    def _read_path_files(self) -> List[Tuple[str, bool]]:
        """The directories that `.pth` files add to the path, if they are there: see the documentation of `site`."""
        found = []
        for directory in sys.path:
            for name in _listed(directory):
                if name.endswith(".pth"):
                    with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
                        lines = [os.path.join(directory, line.strip()) for line in file if line.strip()]
                    found += [(line, os.path.exists(line)) for line in lines]
        return sorted(found)


def _listed(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def wait(channel: Any, watch: Watch, config: Dict[str, Any]) -> bool:
    """
    Wait for the run, and fill in the configuration; false when there is none, or when this session is unfit for it.
    """
    watch.stop()
    channel.send({"event": "waiting"})
    begin = None
    while begin is None:
        messages = channel.receive(wait=True)
        begin = next((message["begin"] for message in messages if "begin" in message), None)
        if begin is None and any("end" in message for message in messages):
            return False
    importlib.invalidate_caches()
    reason = watch.unfit()
    if not reason:
        try:
            os.chdir(begin["directory"])
        except OSError as error:
            reason = str(error)
    if reason:
        channel.send({"event": "unfit", "reason": reason})
        return False
    os.environ.update(begin["environ"])
    config.update(begin["config"])
    return True
