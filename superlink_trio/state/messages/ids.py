"""Ids of nodes, runs and their like in Flower 1.23 and later: unsigned."""

from __future__ import annotations

import secrets
from collections.abc import Container

# 0 is nobody, 1 is the server's own.
_RESERVED = range(2)


def draw_new_id(taken: Container[int] = ()) -> int:
    """Draw an unsigned 64-bit id that is not in use."""
    drawn = 0
    while drawn in _RESERVED or drawn in taken:
        # 63 bits: whoever reads it as a signed number gets the same.
        drawn = secrets.randbits(63)
    return drawn
