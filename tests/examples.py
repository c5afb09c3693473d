"""How many examples a property is tried on."""

from __future__ import annotations

from hypothesis import settings


def at_most(examples: int) -> int:
    """Give this many, or as few as a profile that is shorter than hypothesis' own allows."""
    allowed = settings().max_examples
    return examples if allowed >= settings.get_profile("default").max_examples else allowed
