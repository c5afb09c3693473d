"""Objects in memory, each once, for as long as a message refers to it."""

from __future__ import annotations

from collections.abc import Iterable

import attrs


@attrs.define
class _Entry:
    content: bytes | None = attrs.field(default=None, repr=False)
    references: int = 0


class Objects:
    """Contents by their SHA-256, counted by the messages that they are part of."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self.size = 0
        """Bytes of all that are here."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, object_id: str) -> bool:
        """Say whether an object is referred to, and here."""
        entry = self._entries.get(object_id)
        return entry is not None and entry.content is not None

    def refer(self, object_ids: Iterable[str]) -> list[str]:
        """Note that a message refers to objects; give those that are not here."""
        missing = []
        for object_id in object_ids:
            entry = self._entries.setdefault(object_id, _Entry())
            entry.references += 1
            if entry.content is None:
                missing.append(object_id)
        return missing

    def put(self, object_id: str, content: bytes) -> bool:
        """Keep an object that is referred to; say whether it is new."""
        entry = self._entries.get(object_id)
        if entry is None or entry.content is not None:
            return False
        entry.content = content
        self.size += len(content)
        return True

    def get(self, object_id: str) -> bytes | None:
        """Give an object, None if it is not here."""
        entry = self._entries.get(object_id)
        return None if entry is None else entry.content

    def release(self, object_ids: Iterable[str]) -> None:
        """Note that a message does not refer to objects any more; the last one takes them along."""
        for object_id in object_ids:
            entry = self._entries[object_id]
            entry.references -= 1
            if not entry.references:
                self.size -= len(entry.content or b"")
                del self._entries[object_id]
