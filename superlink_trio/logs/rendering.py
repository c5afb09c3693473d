"""How the command line renders the log: lines for people, or objects for machines.

The package itself only ever uses `logging.getLogger(__name__)`. A message holds its values, so
that it can be read by itself; the same values come as `extra=` fields, for the JSON format.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Literal, Protocol

from superlink_trio.logs import context
from superlink_trio.logs.throttle import Throttle, shorten
from superlink_trio.logs.wording import harmless

# What every LogRecord has. The rest of its attributes came through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m"}
_RED = "\x1b[31m"

_LONGEST_FIELD = 200  # characters of what a call is about


class Stream(Protocol):
    """Where log lines go."""

    def write(self, text: str, /) -> object:
        """Write whole lines."""

    def flush(self) -> object:
        """Let them be seen."""

    def isatty(self) -> bool:
        """Whether people read it on a terminal."""


def configure(
    level: str = "info",
    format: Literal["text", "json"] = "text",
    stream: Stream | None = None,
    worker: int | None = None,
) -> None:
    """Send the log to a stream (standard error by default), for the whole process.

    `level` counts for this package; of others only warnings and worse are shown, and of grpc's only
    a few a minute: strangers can cause them. Text is coloured on a terminal unless NO_COLOR is set
    (https://no-color.org). What a record has as `exception` in its `extra=` follows its line as it
    is, like a traceback. Where there is a number of a `worker`, every record has it.

    To be called before grpc is imported: its C++ part writes to standard error past any log,
    about what is reported as a proper error anyway. GRPC_VERBOSITY brings that back.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    handler: logging.StreamHandler[Stream] = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        JsonLines(worker) if format == "json" else TextLines(_coloured(handler.stream), worker)
    )
    handler.addFilter(_Sparing("grpc"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Let what is less than `level` of this package out of the log, for the whole process."""
    logging.getLogger("superlink_trio").setLevel(level.upper())


def pass_on(lines: str) -> None:
    """Write whole lines, rendered by another process, to where the log of this one goes."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.lock is not None:
            # Nobody stops because a log cannot be written: it is so with lines of this process.
            with handler.lock, suppress(OSError, ValueError):
                handler.stream.write(lines)
                handler.flush()


def level() -> str:
    """Give the level that counts for this package, as `set_level` takes it."""
    return logging.getLevelName(logging.getLogger("superlink_trio").level).lower()


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
    handler.setFormatter(TextLines(_coloured(handler.stream)))
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


class TextLines(logging.Formatter):
    """Lines for people."""

    def __init__(self, coloured: bool, worker: int | None = None) -> None:
        super().__init__()
        self._coloured = coloured
        self._whose = "" if worker is None else f"worker {worker}: "

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as its line, and its traceback below."""
        name = _level(record)
        time, level = _time(record), f"{name:<8}"
        if self._coloured:
            time = f"{_DIM}{time}{_RESET}"
            level = f"{_COLOURS.get(name, _RED)}{level}{_RESET}"
        # A client's words may be in the message: they must not write log lines or drive the
        # terminal.
        first = f"{time} {level} {self._whose}{harmless(record.getMessage())}"
        return "\n".join([first, *map(harmless, _exception(self, record).splitlines())])


class JsonLines(logging.Formatter):
    """An object a line, for machines."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        """Write a record with its extra fields, and those of the call at hand."""
        # Names with an underscore in front are for libraries' own use.
        extra = {
            name: value
            for name, value in vars(record).items()
            if name not in _STANDARD and not name.startswith("_")
        }
        call = {name: _bounded(value) for name, value in context.current().items()}
        # In this order for whoever reads it raw; what is standard is not for others to overwrite.
        standard = {
            "timestamp": _time(record),
            "level": _level(record),
            "logger": record.name,
            "event": record.getMessage(),
            **self._worker,
        }
        fields = {name: _readable(name, value) for name, value in (call | extra).items()}
        entry = {**standard, **fields, **standard}
        if exception := _exception(self, record):
            entry["exception"] = exception
        return json.dumps(entry, default=repr)


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Give the traceback of what went wrong, where there is one."""
    if record.exc_info:
        return formatter.formatException(record.exc_info)
    return str(getattr(record, "exception", None) or "")


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _readable(name: str, value: object) -> object:
    # Ids have 64 bits: whoever reads JSON's numbers as floats, as JavaScript does, rounds them.
    return str(value) if name.endswith("_id") and type(value) is int else value


def _bounded(value: object) -> object:
    # What a call is about its client may have named.
    return shorten(value, _LONGEST_FIELD) if isinstance(value, str) else value
