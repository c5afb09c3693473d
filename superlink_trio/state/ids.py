"""Ids of nodes and runs."""

from __future__ import annotations

import secrets
from collections.abc import Container

from superlink_trio.wire.tasks import ANONYMOUS


def draw_id(taken: Container[int] = ()) -> int:
    """Draw a signed 64-bit id that is neither 0 nor taken."""
    drawn = ANONYMOUS
    while drawn == ANONYMOUS or drawn in taken:
        drawn = int.from_bytes(secrets.token_bytes(8), signed=True)
    return drawn
