"""Browser tests that are written with pytest-playwright, in resident sessions."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from fleetest.common.kinds.kind import Work
from fleetest.common.kinds.pytest import SessionKeys, session_work
from fleetest.common.suite.fields import BY_VALUE, Line, PytestArguments, RelativePath, refused
from fleetest.common.suite.problems import Fault

__all__ = ["Browser", "Keep", "Playwright", "PlaywrightKeys"]

_OUTPUT: Final = "test-results"
# Options of pytest-playwright that a key of ours sets.
_OURS: Final = {
    "--browser": "browser",
    "--device": "device",
    "--base-url": "base_url",
    "--tracing": "trace",
    "--screenshot": "screenshot",
    "--full-page-screenshot": "full_page",
    "--video": "video",
    "--storage-state": "storage_state",
}


class Browser(StrEnum):
    """Which browser cases run in."""

    CHROMIUM = "chromium"
    FIREFOX = "firefox"
    WEBKIT = "webkit"


class Keep(StrEnum):
    """Of which cases a recording is kept."""

    OFF = "off"
    ON = "on"
    FAILED = "retain-on-failure"


def _not_ours(args: list[str]) -> list[str]:
    faults = []
    for index, argument in enumerate(args):
        option = argument.partition("=")[0]
        if option in _OURS:
            hint = f"Write the key `{_OURS[option]}` of the task."
            faults.append(Fault(message=f"{option} has a key of its own", hint=hint, path=(index,)))
        elif option == "--output":
            faults.append(Fault(message=f"--output is always {_OUTPUT}", hint="Take it out.", path=(index,)))
    if faults:
        raise refused(*faults)
    return args


class PlaywrightKeys(SessionKeys):
    """Keys of a task of browser tests."""

    args: Annotated[PytestArguments, AfterValidator(_not_ours)] = Field(
        [], description="pytest's arguments: a list, or a text split as a shell does."
    )
    browser: Annotated[Browser, BY_VALUE] = Field(Browser.CHROMIUM, description="Which browser the cases run in.")
    device: Line = Field("", description="A device that Playwright knows and emulates: `Pixel 7`.")
    base_url: Line = Field(
        "",
        description="What `page.goto('/path')` is relative to; `${env.NAME}` in it is a variable of the environment.",
    )
    trace: Annotated[Keep, BY_VALUE] = Field(Keep.FAILED, description="Of which cases a trace is kept.")
    screenshot: Annotated[Keep, BY_VALUE] = Field(Keep.FAILED, description="Of which cases a last screenshot is kept.")
    full_page: bool = Field(default=False, description="Whether a screenshot shows the page beyond what is visible.")
    video: Annotated[Keep, BY_VALUE] = Field(
        Keep.OFF, description="Of which cases a video is kept; every case is recorded then, which takes processor time."
    )
    storage_state: RelativePath = Field(
        "",
        description="A file of cookies and storage that every page begins with, relative to where the tests start; as "
        "`context.storage_state(path=...)` writes it.",
    )


class Playwright:
    """Fulfils `Kind` for browser tests."""

    name = "playwright"
    keys = PlaywrightKeys
    one_of: tuple[str, ...] = ()
    example = "args: [tests/browser]"
    implied_by: tuple[str, ...] = ()

    def work(self, keys: PlaywrightKeys) -> Work:
        screenshot = "only-on-failure" if keys.screenshot is Keep.FAILED else keys.screenshot.value
        options = [
            # By name, so that pytest says so where it is not installed, and not that it knows no option.
            *("-p", "playwright"),
            f"--browser={keys.browser}",
            f"--output={_OUTPUT}",
            f"--tracing={keys.trace}",
            f"--screenshot={screenshot}",
            f"--video={keys.video}",
        ]
        if keys.full_page:
            options.append("--full-page-screenshot")
        options += [
            f"--{option}={value}"
            for option, value in (
                ("device", keys.device),
                ("base-url", keys.base_url),
                ("storage-state", keys.storage_state),
            )
            if value
        ]
        return replace(
            session_work(keys, [*options, *keys.args]),
            # The first browser of a worker is Chromium, if it has that.
            requirements={"browser": "chromium"}
            if keys.browser is Browser.CHROMIUM
            else {f"browser.{keys.browser}": "true"},
            artifacts=(_OUTPUT,),
        )
