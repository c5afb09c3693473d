"""Call a function that does nothing in 2 of Ray's actors, each of which has one call at a time.

`bare_actors SECONDS`. Reports calls a second.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import time
from typing import Any

_WORKERS = 2
_WARM_UP = 0.5


class Rate:
    """Counts calls, from when the workers are warm until the time is up."""

    def __init__(self, seconds: float) -> None:
        self._start = time.perf_counter() + _WARM_UP
        self._seconds = seconds
        self._calls = 0

    def count(self) -> bool:
        """Count a call; say whether to go on."""
        elapsed = time.perf_counter() - self._start
        self._calls += 0 < elapsed < self._seconds
        return elapsed < self._seconds

    def __float__(self) -> float:
        return self._calls / self._seconds


def in_actors(seconds: float) -> float:
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
        rate = Rate(seconds)
        while rate.count():
            [done], _ = ray.wait(list(working))
            actor = working.pop(done)
            working[actor.nothing.remote()] = actor
    finally:
        ray.shutdown()
    return float(rate)


if __name__ == "__main__":
    print(json.dumps({"rate": in_actors(float(sys.argv[1]))}))
