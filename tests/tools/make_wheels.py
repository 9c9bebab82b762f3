"""Fetches the wheels that the tests' images are built of, once, so that no test waits for them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.images import IMAGE_PYTHON, make_context

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        make_context(Path(directory), python=IMAGE_PYTHON)
