"""How old what signs a call may be: whoever has seen it must not be able to use it for ever."""

from __future__ import annotations

OLDEST, NEWEST = 305.0, -5.0
"""Seconds, as in Flower 1.23 to 1.42; clocks differ."""


def staleness(signed_at: float, now: float) -> str | None:
    """Say what is wrong with the time at which a call was signed, in Unix seconds, or None."""
    age = now - signed_at
    if NEWEST < age < OLDEST:
        return None
    return f"the call was signed {age:.0f} s ago by the clock here: set both clocks"
