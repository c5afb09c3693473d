"""The round loop on a terminal: the round, and how many of its clients have answered."""

from __future__ import annotations

import time
from datetime import timedelta

import trio

from superlink_trio.logs.live import Gauge, Line, Terminal


class Bar:
    """An observer whose line stands below the log, while `show` runs."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._label = "waiting for clients"
        self._round = ""
        self._answered = 0
        self._clients: int | None = None
        self._since = time.monotonic()
        self._news = trio.Event()

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Show the round's number."""
        self._label = self._round = f"round {server_round}/{num_rounds}"
        self._news.set()

    def phase_begins(self, name: str, clients: int) -> None:
        """Begin to count."""
        self._label = f"{self._round} {name}"
        self._answered, self._clients, self._since = 0, clients, time.monotonic()
        self._news.set()

    def answered(self) -> None:
        """Count one more."""
        self._answered += 1
        self._news.set()

    async def show(self) -> None:
        """Show the line until cancelled; nothing is left of it."""
        await self._terminal.show(self._line, self._changed, leave=False)

    async def _changed(self) -> None:
        await self._news.wait()
        self._news = trio.Event()

    def _line(self) -> Line:
        of = "?" if self._clients is None else self._clients
        return (
            self._label,
            Gauge(self._answered, self._clients),
            f"{self._answered}/{of}",
            str(timedelta(seconds=int(time.monotonic() - self._since))),
        )
