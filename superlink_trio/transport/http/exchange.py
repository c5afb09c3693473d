"""One request and its answer, between the protocol and the application."""

from __future__ import annotations

import math
from typing import Protocol

import trio
from starlette.types import Message, Scope, Send

from superlink_trio.transport.http.problems import too_large
from superlink_trio.wire.bulk import join

# Of many smaller parts each would cost more than its bytes.
_SMALL = 16_384

# Parts that are taken before other connections have their turn: one read may bring thousands.
_TURN = 32


class Owner(Protocol):
    """The connection of an exchange."""

    def received(self) -> None:
        """Note that a request is here."""

    async def send(self, exchange: Exchange, message: Message) -> None:
        """Send a part of an answer; return when the system has it. Raises ClientGone."""


class Exchange:
    """One request and its answer, as ASGI's `scope`, `receive` and `send`."""

    def __init__(
        self, scope: Scope, respond: Send, owner: Owner, max_message_size: int, joining: trio.Lock
    ) -> None:
        self.scope = scope
        self.respond = respond
        """Hands a part of an answer to the protocol."""
        self.length = _length(scope)
        """Bytes of the body, as far as they were announced."""
        self.received = 0
        self.ended = False
        """Whether the whole body is here."""
        self.answered = False
        self._owner = owner
        self._max_message_size = max_message_size
        self._joining = joining
        self._parts: list[bytes] = []
        self._taken = 0
        self._wake: trio.Event | None = None

    async def put(self, message: Message) -> None:
        """Take what the protocol has received."""
        if self._too_large:
            return
        self._taken += 1
        if self._taken % _TURN == 0:
            await trio.lowlevel.checkpoint()
        part = message["body"]
        self.received += len(part)
        if not message["more_body"]:
            self.ended = True
            self._owner.received()
        elif self._parts and len(self._parts[-1]) < _SMALL:
            self._parts[-1] += part
        else:
            self._parts.append(part)
        if self._wake is not None and (self.ended or self._too_large):
            self._wake.set()

    async def receive(self) -> Message:
        """Wait for the body, all of it: the application has no use for a part.

        Raises Problem if it is too large.
        """
        if not self.ended and not self._too_large:
            self._wake = trio.Event()
            await self._wake.wait()
        if self._too_large:
            self._parts.clear()
            raise too_large(self._max_message_size)
        return {"type": "http.request", "body": await self._joined(), "more_body": False}

    async def send(self, message: Message) -> None:
        """Send a part of the answer. Raises ClientGone."""
        await self._owner.send(self, message)

    @property
    def _too_large(self) -> bool:
        return self.received > self._max_message_size

    async def _joined(self) -> bytes:
        if len(self._parts) < 2:
            return self._parts.pop() if self._parts else b""
        # For a moment there is all of it twice: only of one at a time.
        async with self._joining:
            try:
                return await join(self._parts)
            finally:
                self._parts.clear()


def _length(scope: Scope) -> float:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)  # the protocol has checked it
    return math.inf
