"""
The environment variables of tests that run as plain processes.

Ordinary suites shall end as plain pytest ends for the same user, so tests inherit the agent's variables, except those
that configure Fleetest, a pytest or coverage that the agent itself may run under, or another interpreter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

__all__ = ["base_environment", "with_interpreter", "with_venv"]

_DROPPED_PREFIXES: Final = ("FLEETEST_", "PYTEST_", "COV_", "COVERAGE_")
_DROPPED: Final = frozenset({"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONHOME", "__PYVENV_LAUNCHER__", "OLDPWD", "PWD"})


def base_environment(inherited: Mapping[str, str], *, temporary: Path) -> dict[str, str]:
    """What of `inherited` tests see, with `temporary` as their directory for temporary files."""
    env = {
        name: value
        for name, value in inherited.items()
        if name not in _DROPPED and not name.startswith(_DROPPED_PREFIXES)
    }
    env.setdefault("PATH", os.defpath)
    env.setdefault("TERM", "dumb")
    env.update(dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary)))
    return env


def with_venv(env: Mapping[str, str], venv: Path) -> dict[str, str]:
    """`env` as activating the virtual environment makes it."""
    return {**env, "VIRTUAL_ENV": str(venv), "PATH": f"{venv / 'bin'}{os.pathsep}{env['PATH']}"}


def with_interpreter(env: Mapping[str, str], python: str) -> dict[str, str]:
    """`env` with the virtual environment of `python` activated, if it is in one."""
    venv = Path(python).parent.parent
    return with_venv(env, venv) if (venv / "pyvenv.cfg").is_file() else dict(env)
