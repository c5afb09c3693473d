"""Ids of nodes and runs."""

from __future__ import annotations

import secrets

from superlink_trio.wire.tasks import ANONYMOUS


def draw_id() -> int:
    """Draw a signed 64-bit id that is not 0. Whether it is in use is for the caller to see."""
    drawn = ANONYMOUS
    while drawn == ANONYMOUS:
        drawn = int.from_bytes(secrets.token_bytes(8), signed=True)
    return drawn
