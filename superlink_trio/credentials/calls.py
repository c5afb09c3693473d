"""Calls that are under way with a key or a token, which end when it is revoked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio


class Denied(Exception):
    """A call is refused; the message is for the log, and so is whose key it came with."""

    def __init__(self, reason: str, fingerprint: str | None = None) -> None:
        super().__init__(reason)
        self.fingerprint = fingerprint


@attrs.define(eq=False)
class Calls:
    """The calls of one kind of credentials, each named by bytes; `name` is what people call one."""

    name: str
    _scopes: dict[bytes, set[trio.CancelScope]] = attrs.field(factory=dict, init=False)

    @contextmanager
    def calling(self, shown: bytes) -> Iterator[None]:
        """Hold a call inside the block. Raises Denied when what it shows is revoked meanwhile."""
        scopes = self._scopes.setdefault(shown, set())
        with trio.CancelScope() as scope:
            scopes.add(scope)
            try:
                yield
            finally:
                scopes.discard(scope)
                if not scopes:
                    self._scopes.pop(shown, None)
        if scope.cancelled_caught:
            raise Denied(f"the {self.name} was revoked")

    def revoke(self, shown: bytes) -> None:
        """End the calls that have shown this."""
        for scope in self._scopes.get(shown, ()):
            scope.cancel()
