"""How often something is tried."""

from __future__ import annotations

from hypothesis import settings


def at_most(examples: int) -> int:
    """Give this many, or as few as a profile that is shorter than hypothesis' own allows."""
    return fewer(examples, settings().max_examples)


def fewer(usual: int, short: int) -> int:
    """Give how often something is tried: `short`, where a short profile was chosen."""
    full = settings().max_examples >= settings.get_profile("default").max_examples
    return usual if full else short
