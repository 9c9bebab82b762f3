from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from pathlib import Path

import pytest
import structlog

from fleetest.common.logging import configure_logging


@pytest.fixture(autouse=True)
def logging_as_it_was():
    root = logging.getLogger()
    handlers, level, configuration = root.handlers, root.level, structlog.get_config()
    yield
    root.handlers, root.level = handlers, level
    structlog.configure(**configuration)
    structlog.contextvars.clear_contextvars()


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_line_carries_time_level_service_message_and_what_is_bound(capsys):
    configure_logging("worker")

    with structlog.contextvars.bound_contextvars(run_id="r1", task_id="unit"):
        structlog.get_logger().info("task_leased", attempt=2)

    (line,) = lines(capsys)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {
        "level": "info",
        "service": "worker",
        "message": "task_leased",
        "run_id": "r1",
        "task_id": "unit",
        "attempt": 2,
    }


def test_lines_of_other_libraries_take_the_same_form(capsys):
    configure_logging("master", level="warning")

    logging.getLogger("grpc").warning("channel %s", "closed")
    logging.getLogger("grpc").info("chatter")
    structlog.get_logger().info("chatter")

    (line,) = lines(capsys)
    assert (line["service"], line["level"], line["message"]) == ("master", "warning", "channel closed")


def test_exception_is_part_of_its_line(capsys):
    configure_logging("master")

    try:
        int("broken")
    except ValueError:
        structlog.get_logger().exception("call_failed")

    (line,) = lines(capsys)
    assert "ValueError: invalid literal" in line["exception"]


def test_terminal_form_is_for_people(capsys):
    configure_logging("worker", json=False)

    structlog.get_logger().info("task_leased", task_id="unit")

    text = capsys.readouterr().err
    assert "task_leased" in text
    with pytest.raises(ValueError, match="Expecting value"):
        json.loads(text)


def test_line_that_nobody_can_read_any_more_fails_nobody(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        configure_logging("master")

        structlog.get_logger().info("task_leased", attempt=2)
        with Path(os.devnull).open("wb") as somewhere:  # for what is left in its buffer
            os.dup2(somewhere.fileno(), writer)
