"""
Starts coverage.py in a session, before pytest is imported.

It is told what the task says; the rest it reads from its own configuration, as `coverage run` does. Only the data file
is ours.
"""

from __future__ import annotations

import os
from typing import Any, Dict

__all__ = ["OLDEST", "CannotMeasure", "start"]

OLDEST = 7


class CannotMeasure(Exception):
    """There is no coverage.py that could, or it refuses what it is told; the message is for people."""


def start(wanted: Dict[str, Any]) -> Any:
    """
    An instance of `coverage.Coverage` that measures.

    Args:
        wanted: see `coverage` in `channel.py`.

    Raises:
        CannotMeasure
    """
    try:
        import coverage
    except ImportError as error:
        raise CannotMeasure(
            "the task measures coverage, and coverage.py cannot be imported: %s; "
            "`setup: pip install coverage` installs it" % error
        ) from error
    if int(coverage.__version__.split(".")[0]) < OLDEST:
        raise CannotMeasure("coverage.py %s is too old; %d is the oldest that works" % (coverage.__version__, OLDEST))
    try:
        return _started(coverage, wanted)
    except coverage.CoverageException as error:
        raise CannotMeasure("coverage.py refuses its configuration: %s" % error) from error


def _started(coverage: Any, wanted: Dict[str, Any]) -> Any:
    data_file = os.path.join(wanted["directory"], "work", ".coverage")
    measuring = coverage.Coverage(
        data_file=data_file,
        config_file=wanted["config"] or True,
        branch=wanted["branch"],
        source=wanted["source"] or None,
    )
    # The session's own files are not among what is tested.
    ours = os.path.join(os.path.dirname(os.path.abspath(__file__)), "*")
    measuring.set_option("run:omit", [*(measuring.get_option("run:omit") or ()), ours])
    os.environ["COVERAGE_RUN"] = "true"  # as `coverage run` does
    if "multiprocessing" in (measuring.get_option("run:concurrency") or ()):
        # Such processes read the configuration file again, where another name stands.
        os.environ["COVERAGE_FILE"] = data_file
    measuring.start()
    return measuring
