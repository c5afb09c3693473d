"""How many calls a second do 2 of Ray's actors bear of a function that does nothing?

`python -m benchmarks.bare_actors SECONDS` prints it. Each has one call at a time.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from typing import Any

import ray

_WORKERS = 2
_WARM_UP = 0.5


def rate(seconds: float) -> float:
    """Give the calls a second, counted when the workers are warm."""

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
    return calls / seconds


if __name__ == "__main__":
    # Else Ray would make a token of its own, and leave it in the user's home.
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    print(rate(float(sys.argv[1])))
