from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest
import trio

from superlink_trio.logs import rendering
from superlink_trio.workers import logs


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Where this process's log goes meanwhile."""
    root, stream = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(stream)
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


def record(text: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("superlink_trio.x", logging.INFO, "", 0, text, (), None)
    vars(made).update(extra)
    return made


async def test_records_of_two_workers_are_not_mixed_up(log: io.StringIO) -> None:
    lines = rendering.TextLines(coloured=False, worker=2)
    long = lines.format(record("failed", exception="Traceback:\n  line\n" * 5000)) + "\n"
    short = lines.format(record("a stranger says \0 here")) + "\n"
    ends = [os.pipe() for _ in range(2)]

    def write(descriptor: int) -> None:
        pipe = logs.LogPipe(descriptor, coloured=False)
        for text in (long, short):
            pipe.write(text)
        os.close(descriptor)

    async with trio.open_nursery() as nursery:
        for ours, theirs in ends:
            nursery.start_soon(logs.pass_on, trio.lowlevel.FdStream(ours))
            nursery.start_soon(trio.to_thread.run_sync, write, theirs)
    written = log.getvalue()
    assert written.count(long) == written.count(short) == 2
    assert len(written) == 2 * (len(long) + len(short))


def test_a_line_says_whose_it_is() -> None:
    text = rendering.TextLines(coloured=False, worker=2).format(record("joined"))
    assert text.endswith("info     worker 2: joined")
    entry = json.loads(rendering.JsonLines(worker=2).format(record("joined", worker="mine")))
    assert (entry["event"], entry["worker"]) == ("joined", 2)
    assert "worker" not in json.loads(rendering.JsonLines().format(record("joined")))


@pytest.fixture
def levels() -> Iterator[None]:
    """Leave the levels of all loggers as they were."""
    yield
    known = logging.getLogger().manager.loggerDict.items()
    for logger in [each for name, each in known if name.startswith("superlink_trio")]:
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.NOTSET)


@pytest.mark.usefixtures("levels")
def test_what_all_would_say_is_said_by_the_first() -> None:
    names = ("cli.running", "config.changes", "credentials.files", "handle", "fleet.api")
    loggers = [logging.getLogger(f"superlink_trio.{name}") for name in names]

    def said(level: str, number: int) -> list[str]:
        logs.set_level(level, number)
        return [each.name.partition(".")[2] for each in loggers if each.isEnabledFor(logging.INFO)]

    assert said("info", 1) == ["credentials.files", "handle", "fleet.api"]
    assert said("info", 2) == ["fleet.api"]
    assert all(each.isEnabledFor(logging.ERROR) for each in loggers)
    assert loggers[0].isEnabledFor(logging.WARNING), "SIGQUIT is for the process that gets it"
    assert said("debug", 2) == list(names)
