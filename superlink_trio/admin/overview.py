"""How everything is doing at this moment, as one JSON document: what every view of it shows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeAlias

import attrs

from superlink_trio.admin.history import History
from superlink_trio.config import Address

Document: TypeAlias = Mapping[str, Any]


@attrs.frozen(kw_only=True)
class Overview:
    """Puts the document together."""

    history: History
    addresses: Callable[[], Mapping[str, Address]]
    """Where each API listens, by its path in the tree."""

    def document(self) -> Document:
        """Describe this moment. Times are Unix seconds, ids are text: JavaScript rounds numbers."""
        return {
            "version": version("superlink-trio"),
            "pid": os.getpid(),
            "time": time.time(),
            "began": self.history.began,
            "faults": list(self.history.faults()),
            "addresses": {path: str(address) for path, address in self.addresses().items()},
            "parts": [
                {
                    "path": path,
                    "state": part.state.value,
                    "since": part.since,
                    "restarts": part.restarts,
                }
                for path, part in self.history.parts.items()
            ],
            "events": [
                {
                    "time": happening.time,
                    "path": happening.path,
                    "kind": happening.kind.value,
                    "words": happening.words,
                }
                for happening in self.history.latest
            ],
        }
