"""Starts a generator: ``python DIRECTORY``, where the directory holds this file and the package `fleetest_load`."""

from __future__ import annotations

import importlib
import sys

__all__ = ["main"]

_NEEDED = "load tests run in the environment of their task: pip install 'fleetest[performance]' there"


def main() -> int:
    """Answers the exit code."""
    directory = sys.path[0]
    try:
        from gevent import monkey

        monkey.patch_all()  # before anything imports what it patches
        program = importlib.import_module("fleetest_load.program")
    except ImportError as error:
        print(f"{error}: {_NEEDED}", file=sys.stderr)  # noqa: T201 - there is nobody else to tell
        return 2
    sys.path.remove(directory)
    return int(program.run())


if __name__ == "__main__":
    sys.exit(main())
