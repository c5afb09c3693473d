"""Log lines that a stranger can cause: bounded in number and in length.

What a client does wrong once is worth a line; what it does wrong a million times is not worth a
full disk. Each source (a node, a peer, a key) may cause a few lines a minute. What is left out is
counted, and the count is told with the next line of that source.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

import attrs

# Enough to see what is wrong, and that it goes on.
BURST = 5
PERIOD = 60.0
"""Seconds."""

# A source more than that forgets the one that was heard of longest ago.
_MAX_SOURCES = 1024

MAX_LENGTH = 1000
"""Characters of a line that holds what a client sent."""


def _trio_time() -> float:
    # The command line sets its log up before it loads trio, and what takes long.
    import trio

    return trio.current_time()


@attrs.define
class _Window:
    began: float
    lines: int = 0
    left_out: int = 0


@attrs.define
class Throttle:
    """Writes at most `burst` lines for each source within `period` seconds.

    One throttle serves one logger; its sources are whatever a line is to be blamed on. Time is
    Trio's unless there is another `clock` (of seconds), so it works only inside a Trio run.
    """

    logger: logging.Logger
    burst: int = BURST
    period: float = PERIOD
    clock: Callable[[], float] = _trio_time
    _windows: OrderedDict[Hashable, _Window] = attrs.field(factory=OrderedDict, init=False)

    def log(
        self,
        level: int,
        source: Hashable,
        message: str,
        *args: object,
        extra: Mapping[str, object] | None = None,
    ) -> bool:
        """Write the line unless its source has had its share; tell whether it was written.

        The line is cut to `MAX_LENGTH` characters. `extra` is passed on as it is: keep what a
        client chose out of it.
        """
        if not self.logger.isEnabledFor(level):
            return False
        left_out = self.admit(source)
        if left_out is None:
            return False
        text = shorten(message % args if args else message)
        self.logger.log(level, "%s", text + left_out, extra=dict(extra or {}))
        return True

    def admit(self, source: Hashable) -> str | None:
        """Count a line: None if its source has had its share, else what it has to end with."""
        window = self._window(source)
        if window.lines >= self.burst:
            window.left_out += 1
            return None
        window.lines += 1
        left_out, window.left_out = window.left_out, 0
        if not left_out:
            return ""
        lines = "line like this one was" if left_out == 1 else "lines like this one were"
        return f" (and {left_out} more {lines} left out)"

    def _window(self, source: Hashable) -> _Window:
        now = self.clock()
        window = self._windows.get(source)
        if window is None:
            if len(self._windows) >= _MAX_SOURCES:
                self._windows.popitem(last=False)
            window = self._windows[source] = _Window(now)
        elif now - window.began >= self.period:
            window.began, window.lines = now, 0
        self._windows.move_to_end(source)
        return window


def shorten(text: str, limit: int = MAX_LENGTH) -> str:
    """Cut a text to `limit` characters, and say in it how many were left out."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more characters)"
