from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from fleetest.common.errors import InvalidRequest
from fleetest.common.settings import (
    Secret,
    days,
    header_secret,
    pairs,
    path,
    read_settings,
    seconds,
    secret,
    setting,
    switch,
    text,
    whole_number,
    words,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    name: str = setting("FLEETEST_NAME", text)
    token: Secret = setting("FLEETEST_TOKEN", secret, default=Secret())
    slots: int = setting("FLEETEST_SLOTS", whole_number(at_least=1), default=5)
    idle: timedelta = setting("FLEETEST_IDLE_SECONDS", seconds, default=timedelta(minutes=1))
    masters: tuple[str, ...] = setting("FLEETEST_MASTERS", words, default=())
    labels: Mapping[str, str] = setting("FLEETEST_LABELS", pairs, default=None)
    data: Path = setting("FLEETEST_DATA", path, default=Path("/data"))
    wired: str = "not read from anywhere"


def test_settings_are_read_from_their_variables():
    environment = {
        "FLEETEST_NAME": "left",
        "FLEETEST_TOKEN": "hush",
        "FLEETEST_SLOTS": " 2 ",
        "FLEETEST_IDLE_SECONDS": "1.5",
        "FLEETEST_MASTERS": "a:1, b:2,",
        "FLEETEST_LABELS": "zone=eu, rack = 7",
        "FLEETEST_DATA": "~/data",
    }

    settings = read_settings(Settings, environment)

    assert settings == Settings(
        name="left",
        token=Secret("hush"),
        slots=2,
        idle=timedelta(seconds=1.5),
        masters=("a:1", "b:2"),
        labels={"zone": "eu", "rack": "7"},
        data=Path.home() / "data",
    )


def test_absent_and_blank_variables_leave_the_default():
    settings = read_settings(Settings, {"FLEETEST_NAME": "x", "FLEETEST_SLOTS": "  "})

    assert settings.slots == 5
    assert settings.data == Path("/data")


def test_given_values_come_before_the_environment_even_when_that_is_wrong():
    environment = {"FLEETEST_NAME": "environment", "FLEETEST_SLOTS": "many"}

    settings = read_settings(Settings, environment, {"slots": 3, "name": None})

    assert settings.slots == 3
    assert settings.name == "environment"


def test_every_problem_is_reported_together():
    environment = {
        "FLEETEST_SLOTS": "many",
        "FLEETEST_IDLE_SECONDS": "soon",
        "FLEETEST_LABELS": "zone",
    }

    with pytest.raises(InvalidRequest) as caught:
        read_settings(Settings, environment)

    assert caught.value.message.splitlines() == [
        "FLEETEST_NAME: is required",
        "FLEETEST_SLOTS: 'many' is not a whole number",
        "FLEETEST_IDLE_SECONDS: 'soon' is not a number of seconds",
        "FLEETEST_LABELS: 'zone' is not of the form key=value",
    ]
    assert caught.value.hint


@pytest.mark.parametrize(
    ("parse", "raw", "problem"),
    [
        (whole_number(at_least=1), "0", "less than 1"),
        (seconds, "-1", "less than no time"),
        (days, "0", "less than 1"),
        (seconds, "1e300", "not a number of seconds"),
        (pairs, "=value", "key=value"),
    ],
)
def test_values_out_of_range_are_refused(parse, raw, problem):
    with pytest.raises(ValueError, match=problem):
        parse(raw)


def test_days_are_whole():
    assert days("30") == timedelta(days=30)


def test_secret_shows_only_to_those_who_ask():
    token = Secret("hush")

    shown = f"{token} {token!r} {read_settings(Settings, {'FLEETEST_NAME': 'x', 'FLEETEST_TOKEN': 'hush'})}"

    assert "hush" not in shown
    assert token.reveal() == "hush"
    assert token
    assert not Secret()
    assert {token, Secret("hush")} == {token}


@pytest.mark.parametrize("wrong", ["flt_\u2026", "two words", "a\nb", "tab\there"])
def test_token_that_cannot_travel_is_refused_and_not_shown(wrong):
    with pytest.raises(ValueError, match="a token cannot have") as refused:
        header_secret(wrong)

    assert wrong not in str(refused.value)
    assert header_secret("flt_x-~") == Secret("flt_x-~")


@pytest.mark.parametrize(("raw", "value"), [("1", True), ("Yes", True), ("0", False), ("off", False)])
def test_switch_is_on_or_off(raw, value):
    assert switch(raw) is value

    with pytest.raises(ValueError, match="neither 1 nor 0"):
        switch("perhaps")
