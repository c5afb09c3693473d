"""Ids of nodes and runs."""

from __future__ import annotations

import secrets
from collections.abc import Container

from superlink_trio.wire.tasks import ANONYMOUS


def draw_id() -> int:
    """Draw a signed 64-bit id that is not 0. Whether it is in use is for the caller to see."""
    return draw_new_id(())


def draw_new_id(taken: Container[int]) -> int:
    """Draw an id that is not in use."""
    drawn = ANONYMOUS
    while drawn == ANONYMOUS or drawn in taken:
        drawn = int.from_bytes(secrets.token_bytes(8), signed=True)
    return drawn
