"""Reading again what a program was told, while it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from superlink_trio.cli.running import Link
from superlink_trio.config import Settings, SuperLinkConfig
from superlink_trio.config.building import PROGRAM
from superlink_trio.config.changes import changes, log_changes

_log = logging.getLogger(__name__)

Read: TypeAlias = Callable[[], tuple[Settings, SuperLinkConfig]]
"""Reads command line, environment and file."""


@attrs.define
class Reloading:
    """Lets what command line, environment and file say by now count, as far as it can.

    A fault in any of them leaves everything as it was, keys and certificates included.
    """

    _read: Read
    _warned: Sequence[str]
    _running: dict[str, str | None]
    """What counts of the program's own options."""

    @classmethod
    def of(cls, read: Read, started_with: Settings) -> Reloading:
        """Start from what the program was started with."""
        running = {option.name: started_with.get(option.name) for option in PROGRAM}
        return cls(read, tuple(started_with.warnings), running)

    async def __call__(self, link: Link) -> None:
        """Read everything again; the log says what has changed, or every fault."""
        import trio

        given, config = await trio.to_thread.run_sync(self._read)
        for fault in given.faults:
            _log.error("Nothing is changed: %s", fault)
        if given.faults:
            return
        for warning in given.warnings:
            if warning not in self._warned:
                _log.warning(warning)
        self._warned = tuple(given.warnings)
        self._take(given)
        await link.reload(config)

    def _take(self, given: Settings) -> None:
        from superlink_trio.logs import rendering

        was, becomes = (
            level or "info" for level in (self._running["log_level"], given.get("log_level"))
        )
        # That it changes should be seen, whichever of the two would hide it.
        rendering.set_level(min(was, becomes, key=_severity))
        log_changes(
            changes(
                PROGRAM,
                lambda option: self._running[option.name],
                lambda option: given.get(option.name),
            )
        )
        self._running["log_level"] = given.get("log_level")
        rendering.set_level(becomes)


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
