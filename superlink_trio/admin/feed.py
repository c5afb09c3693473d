"""The overview as a stream of server-sent events, for pages that stay open.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs
import trio

from superlink_trio.admin.documents import Document
from superlink_trio.admin.overview import Overview

# A browser has six connections to one place; this is a few people with a tab or two each.
_MOST_VIEWERS = 24

# Seconds between two looks at the overview, and the age at which it is put together anew.
_INTERVAL = 1.0

# Seconds after which a viewer is told that the connection stands, where there is nothing else.
_HEARTBEAT = 5.0

_Send: TypeAlias = Callable[[bytes], Awaitable[None]]


class TooManyViewers(Exception):
    """There is no room for another viewer."""


@attrs.frozen
class _Moment:
    document: Document
    taken: float
    changes: int
    """How often the document has changed so far, its own time aside."""


class Feed:
    """Puts the overview together once for all who look at it within a second."""

    def __init__(self, overview: Overview, stopping: trio.Event) -> None:
        self._overview = overview
        self._stopping = stopping
        self._latest: _Moment | None = None
        self._taking = trio.Lock()
        self._viewers = 0

    async def document(self) -> Document:
        """Give the overview, at most a second old."""
        return (await self._moment()).document

    async def stream(self, send: _Send) -> None:
        """Send every change until the server stops, and then that it does.

        Raises TooManyViewers before anything was sent.
        """
        if self._viewers >= _MOST_VIEWERS:
            raise TooManyViewers
        self._viewers += 1
        try:
            await self._follow(send)
        finally:
            self._viewers -= 1

    async def _follow(self, send: _Send) -> None:
        seen, spoken = 0, trio.current_time()
        while not self._stopping.is_set():
            moment = await self._moment()
            if moment.changes != seen:
                seen, spoken = moment.changes, trio.current_time()
                await send(_event("overview", json.dumps(moment.document)))
            elif trio.current_time() >= spoken + _HEARTBEAT:
                # No comment: pages are not shown those, and have to notice when it is silent.
                spoken = trio.current_time()
                await send(_event("heartbeat", ""))
            with trio.move_on_after(_INTERVAL):
                await self._stopping.wait()
        await send(_event("stopping", ""))

    async def _moment(self) -> _Moment:
        async with self._taking:
            before, now = self._latest, trio.current_time()
            if before is None or now >= before.taken + _INTERVAL:
                document = await self._overview.document()
                changed = before is None or _timeless(document) != _timeless(before.document)
                changes = (0 if before is None else before.changes) + changed
                self._latest = before = _Moment(document, now, changes)
            return before


def _timeless(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "time"}


def _event(name: str, data: str) -> bytes:
    return f"event: {name}\ndata: {data}\n\n".encode()
