from __future__ import annotations

import logging

import pytest
from trio.testing import MockClock

from superlink_trio.logs.throttle import MAX_LENGTH, Throttle, shorten

_logger = logging.getLogger("superlink_trio.test")


async def test_a_source_has_its_share_of_lines_in_a_minute(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    throttle = Throttle(_logger, burst=2, period=60)
    written = [throttle.log(logging.WARNING, "node 1", "Bad item %d", i) for i in range(100)]
    assert written == [True, True] + [False] * 98
    assert throttle.log(logging.WARNING, "node 2", "Bad item")

    autojump_clock.jump(60)
    throttle.log(logging.WARNING, "node 1", "Bad item")
    throttle.log(logging.WARNING, "node 1", "Bad item")
    assert caplog.messages == [
        "Bad item 0",
        "Bad item 1",
        "Bad item",
        "Bad item (and 98 more lines like this one were left out)",
        "Bad item",
    ]


async def test_many_sources_are_not_remembered_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    throttle = Throttle(_logger)
    for source in range(5000):
        throttle.log(logging.WARNING, source, "Bad item")
    assert len(throttle._windows) <= 1024


async def test_what_a_client_sent_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    Throttle(_logger).log(logging.WARNING, "node", "Bad item: %s", "x" * 10**6)
    [line] = caplog.messages
    assert len(line) < MAX_LENGTH + 50


async def test_a_level_that_is_off_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger=_logger.name)
    throttle = Throttle(_logger, burst=1)
    assert not throttle.log(logging.WARNING, "node", "Bad item")
    assert not throttle._windows


def test_a_short_text_stays_as_it_is() -> None:
    assert shorten("short") == "short"
    assert shorten("abcdef", 4) == "abcd… (2 more characters)"
