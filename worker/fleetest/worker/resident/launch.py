"""
Runs pytest as the `pytest` command would, with the resident plugin added.

Started as ``python launch.py CONFIG`` inside the user's interpreter; CONFIG is the JSON file that `Config` in
`channel.py` describes. The exit code is pytest's own, or `CANNOT_START` when there is no usable pytest.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import sys
from typing import Any, Dict, List, Tuple

__all__ = ["main"]

CANNOT_START = 96
OLDEST_PYTEST = 7


def _load(name: str) -> Any:
    # Not in sys.modules, so that what searches all modules (pyfakefs, freezegun) leaves the session alone.
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location("_fleetest_" + name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _become_the_pytest_command(arguments: List[str], own_hash_seed: Any) -> None:
    scripts = os.path.dirname(sys.executable)
    sys.path[0] = scripts
    sys.argv = [os.path.join(scripts, "pytest"), *arguments]
    # Fixed so that sessions agree on the order of sets; what the tests start decides for itself.
    if not own_hash_seed:
        os.environ.pop("PYTHONHASHSEED", None)


def _compiled(directory: str) -> Any:
    """What looks modules up before they are compiled, those of ours that follow included."""
    if not directory:
        return None
    compiled = _load("compiled").Compiled(_load("stored"), directory)
    compiled.put_into_importlib()
    return compiled


def _import_pytest(channel: Any, compiled: Any) -> bool:
    """Whether there is a usable pytest; if not, that has been said."""
    try:
        import pytest
    except ImportError as error:
        channel.send({"event": "stopped", "kind": "usage", "reason": f"pytest cannot be imported: {error}"})
        return False
    if int(pytest.__version__.split(".")[0]) < OLDEST_PYTEST:
        reason = f"pytest {pytest.__version__} is too old; {OLDEST_PYTEST} is the oldest that works"
        channel.send({"event": "stopped", "kind": "usage", "reason": reason})
        return False
    if compiled is not None:
        compiled.put_into_pytest(sys.modules.get("_pytest.assertion.rewrite"))
    return True


def _import_what_every_session_needs() -> None:
    """Import pytest's own plugins: it does so without rewriting their assertions, so it makes no difference when."""
    from _pytest import config

    for name in getattr(config, "default_plugins", ()):
        importlib.import_module("_pytest." + name)


def _traced(config: Dict[str, Any], channel: Any) -> Tuple[Any, bool]:
    """What measures coverage, if that is asked for; and whether it could be started."""
    if config["coverage"] is None:
        return None, True
    tracing = _load("tracing")
    try:
        return tracing.start(config["coverage"]), True
    except tracing.CannotMeasure as error:
        channel.send({"event": "stopped", "kind": "usage", "reason": str(error)})
        return None, False


def _watchers(config: Dict[str, Any], channel: Any, tracer: Any) -> Tuple[Any, Any]:
    """What tells whether results may be cached, and what measures; `None` for what is not asked for."""
    witness = measuring = None
    if config["cache_inputs"] is not None:
        witness = _load("witness").Witness(config["workspace"], config["cache_inputs"])
    if tracer is not None:
        measuring = _load("measuring").Measuring(tracer, config["coverage"], config["workspace"], channel)
    return witness, measuring


def main() -> int:
    """Run pytest with the plugin; answers the exit code."""
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    put_off = _load("garbage").PutOff()
    compiled = _compiled(config["compiled"])
    channels = _load("channel")
    channel = channels.Channel(config["socket"], config["token"])
    claims = _load("claims").Claims(
        config["claims_file"], channel.move_high, lambda: channel.leave(channels.DESCRIPTOR_LOST)
    )
    marks = _load("marks").Marks(config["mark"], channel.move_high)
    watch = None
    if config["waits"]:
        waiting = _load("waiting")
        watch = waiting.Watch(config["workspace"])
    else:
        _become_the_pytest_command(config["arguments"], config["own_hash_seed"])
    tracer, can_start = _traced(config, channel)
    if not can_start:
        return CANNOT_START
    if not _import_pytest(channel, compiled):
        return CANNOT_START
    plugin, outcome, locations = _load("plugin"), _load("outcome"), _load("locations")
    if watch is not None:
        _import_what_every_session_needs()
        if not waiting.wait(channel, watch, config):
            return 0
        _become_the_pytest_command(config["arguments"], config["own_hash_seed"])
    fingerprints = None
    if config["fingerprints"]:
        fingerprints = functools.partial(_load("fingerprint").Fingerprints, _load("closure"))
    witness, measuring = _watchers(config, channel, tracer)
    where = locations.Locations(
        config["workspace"], lambda path: str(outcome.bounded(path, config["text_limit_bytes"])[0])
    )
    plugins = [
        plugin.ResidentPlugin(channel, claims, marks, outcome, config, put_off, where, fingerprints, witness, measuring)
    ]
    plugins += [each for each in (witness, measuring) if each is not None]
    if importlib.util.find_spec("pytest_playwright") is not None:
        plugins.append(_load("browsers").Browsers())
    import pytest

    try:
        return int(pytest.main(config["arguments"], plugins=plugins))
    finally:
        if measuring is not None:
            measuring.end()


if __name__ == "__main__":
    sys.exit(main())
