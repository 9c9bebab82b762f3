"""
Logging, the same in every process: one line per event on standard error.

An event is a snake_case fact in the past tense (`task_leased`) with its values beside it. What is bound with
`structlog.contextvars` (run_id, task_id, attempt, worker_id, request_id, ...) is on every line of that context. On
a terminal the lines are for people, elsewhere they are JSON. Lines of other libraries take the same form.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TextIO

import msgspec
import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["LEVELS", "configure_logging"]

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
LEVELS: Final = ("debug", "info", "warning", "error")


def configure_logging(service: str, *, level: str = "info", json: bool | None = None) -> None:
    """
    Set logging up for this process; call it once, where the process is wired together.

    Args:
        service: which process speaks: "master", "worker", ...
        level: the least level shown, one of `LEVELS`.
        json: `None` writes JSON unless standard error is a terminal.
    """

    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["service"] = service
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
    ]
    as_json = not sys.stderr.isatty() if json is None else json
    rendering = _json_lines() if as_json else [structlog.dev.ConsoleRenderer()]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Ours do without the records of the standard library, which take half of the time of a line.
    lines = _Lines(sys.stderr)
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: lines,
    )


class _Lines:
    """What structlog gives its finished lines to. As with every logger, nobody fails since a line cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._one_writer = threading.Lock()

    def msg(self, line: str) -> None:
        with self._one_writer, suppress(OSError, ValueError):  # the disk is full; nobody reads; it was closed
            self._stream.write(line + "\n")
            self._stream.flush()

    debug = info = warning = error = critical = exception = msg


def _json_lines() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("message"),
        _in_json,
    ]


def _in_json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return _encode(event).decode()
    except (TypeError, ValueError, OverflowError):  # half a surrogate pair, or an integer beyond all measure
        return json.dumps(event, default=str)
