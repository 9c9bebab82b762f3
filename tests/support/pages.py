"""A server of a few pages, for tests in browsers: a child process, as its tests' browser is one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["BROWSER_PYTHON", "SHOP", "serving"]

BROWSER_PYTHON = Path(__file__).parents[2] / ".cache/venvs/browser/bin/python"
"""Of an environment with pytest-playwright, as `tests/tools/make_venvs.sh` makes it."""

SHOP = """<!doctype html><title>Shop</title><h1>Shop</h1>
<button onclick="document.body.append('Bought')">Buy</button>
<p id="who"></p><script>who.textContent = 'Hello ' + (localStorage.name || 'stranger')</script>
"""


@contextmanager
def serving(directory: Path) -> Iterator[str]:
    """The address under which the directory is served."""
    server = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(directory), "0"]
    with subprocess.Popen(server, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert child.stdout is not None
            port = child.stdout.readline().split(" port ")[1].split()[0]
            yield f"http://127.0.0.1:{port}"
        finally:
            child.kill()
