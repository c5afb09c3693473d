"""How the command line renders the log: lines for people, or objects for machines.

The package itself only ever uses `logging.getLogger(__name__)`. A message holds its values, so
that it can be read by itself; the same values come as `extra=` fields, for the JSON format.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import structlog
from structlog.dev import Column, ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter

from superlink_trio.logs import context
from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.logs.wording import harmless

_Event = MutableMapping[str, Any]

# What every LogRecord has. The rest of its attributes came through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m"}
_RED = "\x1b[31m"


class Stream(Protocol):
    """Where log lines go."""

    def write(self, text: str, /) -> object:
        """Write whole lines."""

    def flush(self) -> object:
        """Let them be seen."""

    def isatty(self) -> bool:
        """Whether people read it on a terminal."""


def configure(
    level: str = "info", format: Literal["text", "json"] = "text", stream: Stream | None = None
) -> None:
    """Send the log to a stream (standard error by default), for the whole process.

    `level` counts for this package; of others only warnings and worse are shown, and of grpc's only
    a few a minute: strangers can cause them. Text is coloured on a terminal unless NO_COLOR is set
    (https://no-color.org). What a record has as `exception` in its `extra=` follows its line as it
    is, like a traceback.

    To be called before grpc is imported: its C++ part writes to standard error past any log,
    about what is reported as a proper error anyway. GRPC_VERBOSITY brings that back.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler: logging.StreamHandler[Stream] = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_as_json() if format == "json" else _as_text(_coloured(handler.stream)))
    handler.addFilter(_Sparing("grpc"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("superlink_trio").setLevel(level.upper())


class _Sparing(logging.Filter):
    """Lets only so much through of what a library logs, and cuts it."""

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self._throttle = Throttle(logging.getLogger(library), clock=time.monotonic)

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True  # of another library
        left_out = self._throttle.admit(self.name)
        if left_out is None:
            return False
        record.msg, record.args = shorten(record.getMessage()) + left_out, ()
        return True


@contextmanager
def shown(stream: Stream | None = None) -> Iterator[None]:
    """Show this package's log on a stream (standard error by default) inside the block, as text.

    For the functions that scripts call which know nothing of logging: what they do should be seen.
    """
    logger = logging.getLogger("superlink_trio")
    handler: logging.StreamHandler[Stream] = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_as_text(_coloured(handler.stream)))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(level or logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _coloured(stream: Stream) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _as_json() -> ProcessorFormatter:
    return ProcessorFormatter(
        processors=[
            ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        foreign_pre_chain=[_all_fields],
    )


def _as_text(coloured: bool) -> ProcessorFormatter:
    def time(key: str, value: object) -> str:
        return f"{_DIM}{value}{_RESET}" if coloured else str(value)

    def level(key: str, value: object) -> str:
        padded = f"{value:<8}"
        return f"{_COLOURS.get(str(value), _RED)}{padded}{_RESET}" if coloured else padded

    def message(key: str, value: object) -> str:
        return str(value)

    columns = [
        Column("timestamp", time),
        Column("level", level),
        Column("event", message),
        Column("", message),
    ]
    return ProcessorFormatter(
        processors=[
            ProcessorFormatter.remove_processors_meta,
            ConsoleRenderer(columns=columns, exception_formatter=plain_traceback),
        ],
        foreign_pre_chain=[_line],
    )


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _all_fields(_: object, __: str, event: _Event) -> _Event:
    record: logging.LogRecord = event["_record"]
    # Names with an underscore in front are for libraries' own use, structlog's among them.
    extra = {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith("_")
    }
    standard = {
        "timestamp": _time(record),
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    # In this order for whoever reads it raw; what is standard is not for `extra` to overwrite.
    fields = {name: _readable(name, value) for name, value in (context.current() | extra).items()}
    return {**standard, "event": event["event"], **fields, **standard, **event}


def _readable(name: str, value: object) -> object:
    # Ids have 64 bits: whoever reads JSON's numbers as floats, as JavaScript does, rounds them.
    return str(value) if name.endswith("_id") and type(value) is int else value


def _line(_: object, __: str, event: _Event) -> _Event:
    record: logging.LogRecord = event["_record"]
    event["timestamp"] = _time(record)
    event["level"] = record.levelname.lower()
    # A client's words may be in the message: they must not write log lines or drive the terminal.
    event["event"] = harmless(event["event"])
    exception = getattr(record, "exception", None)
    if exception is not None:
        event["exception"] = "\n".join(map(harmless, str(exception).splitlines()))
    return event
