"""
The pytest plugin that lets pytest-playwright use what the machine has, and start from a state that was saved.

Playwright brings programs of its own (`playwright install`), and these come first. Where its Chromium is absent, the
system's is started; where its ffmpeg is, videos are made with the system's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from typing import Any, Dict, Iterator

import pytest

__all__ = ["Browsers"]

# As the worker looks for them (`fleetest.worker.capabilities`).
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PLUGIN = "playwright"


class Browsers:
    """Made before pytest begins. Without pytest-playwright it does nothing."""

    def __init__(self) -> None:
        # Looked up now: tests may replace anything.
        self._chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
        self._ffmpeg = shutil.which("ffmpeg")

    def pytest_addoption(self, parser: Any) -> None:
        parser.getgroup("fleetest", "Fleetest").addoption(
            "--storage-state", default="", metavar="FILE", help="Cookies and storage that browser contexts begin with."
        )

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: Any) -> None:
        if not config.pluginmanager.has_plugin(_PLUGIN):
            return
        if config.option.base_url:
            # It may be known only where the tests run: a service has whichever port was free.
            config.option.base_url = _filled("base_url", config.option.base_url)
        state = _storage_state(config)
        # Now, because of two plugins with a fixture of the same name the later one is asked; a conftest's stays above.
        config.pluginmanager.register(_Fixtures(self._chromium, state), "fleetest-browsers")
        if config.getoption("--video", "off") != "off" and self._ffmpeg and sys.platform == "linux":
            _offer_ffmpeg(config, self._ffmpeg)


class _Fixtures:
    def __init__(self, chromium: Any, storage_state: str) -> None:
        self._chromium = chromium
        self._storage_state = storage_state

    @pytest.fixture(scope="session")
    def browser_type_launch_args(self, browser_type_launch_args: Any, browser_type: Any) -> Dict[str, Any]:
        """Start the system's Chromium where Playwright has none."""
        arguments = dict(browser_type_launch_args)
        if (
            browser_type.name == "chromium"
            and self._chromium
            and not ({"executable_path", "channel"} & set(arguments))
            and not _has_own_chromium(browser_type.executable_path)
        ):
            arguments["executable_path"] = self._chromium
        return arguments

    @pytest.fixture(scope="session")
    def browser_context_args(self, browser_context_args: Any) -> Dict[str, Any]:
        """Begin with the state that was saved."""
        if not self._storage_state:
            return dict(browser_context_args)
        return {**browser_context_args, "storage_state": self._storage_state}

    @pytest.fixture(scope="session", autouse=True)
    def delete_output_dir(self) -> None:
        """
        Leave it as it is: a workspace begins clean, and a session that tore down its fixtures in a break goes on with
        what its cases have left.
        """


def _has_own_chromium(executable: str) -> bool:
    """Whether Playwright has one, be it only the small one for running without a window."""
    folder, _, inside = executable.partition(os.sep + "chromium-")
    revision = inside.partition(os.sep)[0]
    return os.path.exists(executable) or os.path.isdir(os.path.join(folder, "chromium_headless_shell-" + revision))


def _filled(key: str, text: str) -> str:
    """The text with variables of the environment put in."""

    def value(match: Any) -> str:
        if match.group(1) not in os.environ:
            raise pytest.UsageError(f"{key} {text}: there is no variable {match.group(1)}")
        return os.environ[match.group(1)]

    return re.sub(r"\$\{env\.(\w+)\}", value, text)


def _storage_state(config: Any) -> str:
    """The absolute path of the file; tests may change the working directory."""
    path = config.getoption("--storage-state")
    if not path:
        return ""
    absolute = os.path.join(str(config.invocation_params.dir), path)
    try:
        with open(absolute, encoding="utf-8") as file:
            json.load(file)
    except OSError as error:
        raise pytest.UsageError(f"--storage-state {path}: {error.strerror}") from error
    except ValueError as error:
        raise pytest.UsageError(f"--storage-state {path}: is no JSON: {error}") from error
    return absolute


def _offer_ffmpeg(config: Any, ffmpeg: str) -> None:
    """Playwright has no setting for it, so it is given a directory of programs with ours among its own."""
    playwright = importlib.util.find_spec("playwright")
    if playwright is None or not playwright.submodule_search_locations:
        return
    package = os.path.join(playwright.submodule_search_locations[0], "driver", "package")
    with open(os.path.join(package, "browsers.json"), encoding="utf-8") as file:
        revisions = {browser["name"]: browser["revision"] for browser in json.load(file)["browsers"]}
    name = "ffmpeg-" + revisions["ffmpeg"]
    own = _own_programs(package)
    if os.path.isdir(os.path.join(own, name)):
        return
    directory = tempfile.mkdtemp(prefix="playwright-programs-")
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    for other in _names_in(own):
        os.symlink(os.path.join(own, other), os.path.join(directory, other))
    os.mkdir(os.path.join(directory, name))
    os.symlink(ffmpeg, os.path.join(directory, name, "ffmpeg-linux"))
    os.environ["PLAYWRIGHT_BROWSERS_PATH"] = directory


def _own_programs(package: str) -> str:
    """Where Playwright's own are (https://playwright.dev/python/docs/browsers#managing-browser-binaries)."""
    chosen = os.environ.get("PLAYWRIGHT_BROWSERS_PATH", "")
    if chosen == "0":
        return os.path.join(package, ".local-browsers")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return chosen or os.path.join(cache, "ms-playwright")


def _names_in(directory: str) -> Iterator[str]:
    if os.path.isdir(directory):
        yield from os.listdir(directory)
