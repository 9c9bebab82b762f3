"""Processes whose clock is off: Debian's `faketime` tells them another time of day. What they measure stays right."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

__all__ = ["clock_off_by"]

_ABSENT: Final = "needs Debian's faketime: run tests/tools/install_debian.sh"
_LIBRARIES: Final = "/usr/lib/*/faketime/libfaketime.so.1"


def clock_off_by(offset: timedelta) -> dict[str, str]:
    """The environment of such a process, and of its children."""
    library = next((str(path) for path in Path("/").glob(_LIBRARIES.lstrip("/"))), None)
    if library is None:
        assert "FLEETEST_TEST_ALL" not in os.environ, _ABSENT
        pytest.skip(_ABSENT)
    return {
        "LD_PRELOAD": library,
        "FAKETIME": f"{offset.total_seconds():+.0f}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
