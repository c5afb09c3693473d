"""Payloads, kept once however many tasks carry the same content."""

from __future__ import annotations

import hashlib
import weakref

import attrs

from superlink_trio.bulk import in_thread_if_large


@attrs.frozen(eq=False, weakref_slot=True)
class Payload:
    """One content. Whoever refers to it keeps it; with the last reference it is freed."""

    data: bytes = attrs.field(repr=False)


class PayloadPool:
    """Finds the payload of an equal content, by its SHA-256."""

    def __init__(self) -> None:
        self._by_digest: weakref.WeakValueDictionary[bytes, Payload] = weakref.WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._by_digest)

    async def share(self, data: bytes) -> Payload:
        """Give the payload with this content; it is new when nothing refers to an equal one."""
        digest = (await in_thread_if_large(len(data), hashlib.sha256, data)).digest()
        payload = self._by_digest.get(digest)
        if payload is None:
            payload = self._by_digest[digest] = Payload(data)
        return payload
