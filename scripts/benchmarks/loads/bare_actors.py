"""A function that does nothing, in 2 of Ray's actors, each of which has one call at a time."""

from __future__ import annotations

import logging
import os
import secrets
import time
from typing import Any

_WORKERS = 2
_WARM_UP = 0.5


def rate(seconds: float) -> dict[str, float]:
    """Give the calls a second, counted when the workers are warm."""
    # Else Ray would make a token of its own, and leave it in the user's home.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    class Actor:
        def nothing(self) -> None:
            """Do nothing."""

    ray.init(
        address="local", include_dashboard=False, num_cpus=_WORKERS, logging_level=logging.ERROR
    )
    try:
        actors: list[Any] = [ray.remote(Actor).remote() for _ in range(_WORKERS)]
        working = {actor.nothing.remote(): actor for actor in actors}
        ray.get(list(working))
        begin, calls = time.perf_counter() + _WARM_UP, 0
        while (elapsed := time.perf_counter() - begin) < seconds:
            calls += elapsed > 0
            [done], _ = ray.wait(list(working))
            actor = working.pop(done)
            working[actor.nothing.remote()] = actor
    finally:
        ray.shutdown()
    return {"rate": calls / seconds}
