"""Payloads, kept once however many tasks carry the same content."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence

import attrs

from superlink_trio.wire.bulk import in_thread_if_large
from superlink_trio.wire.tasks import Task


@attrs.frozen(eq=False, weakref_slot=True)
class Payload:
    """One content. Whoever refers to it keeps it; with the last reference it is freed."""

    data: bytes = attrs.field(repr=False)


class _Reference(weakref.ref[Payload]):
    """A weak reference that knows, when its payload is gone, which one it was."""

    __slots__ = ("digest", "size")
    digest: bytes
    size: int


class PayloadPool:
    """Finds the payload of an equal content, by its SHA-256."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, _Reference] = {}
        self.size = 0
        """Bytes of all payloads."""

    def __len__(self) -> int:
        return len(self._by_digest)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._by_digest

    def share(self, digest: bytes, data: bytes) -> Payload:
        """Give the payload with this content; it is new when nothing refers to an equal one."""
        reference = self._by_digest.get(digest)
        payload = None if reference is None else reference()
        if payload is None:
            payload = Payload(data)
            reference = self._by_digest[digest] = _Reference(payload, self._forget)
            reference.digest, reference.size = digest, len(data)
            self.size += len(data)
        return payload

    def _forget(self, reference: _Reference) -> None:
        del self._by_digest[reference.digest]
        self.size -= reference.size


async def digests_of(tasks: Sequence[Task], *, above: int = -1) -> list[bytes | None]:
    """Give the SHA-256 of each task's payload; None for an error, and up to `above` bytes."""
    contents = [_payload(task, above) for task in tasks]
    size = sum(len(content) for content in contents if content is not None)
    return await in_thread_if_large(size, _digests, contents)


def _payload(task: Task, above: int) -> bytes | None:
    content = task.content
    return content if isinstance(content, bytes) and len(content) > above else None


def _digests(contents: Sequence[bytes | None]) -> list[bytes | None]:
    return [None if content is None else hashlib.sha256(content).digest() for content in contents]
