"""What tests need that send rubbish to a SuperLink: one that runs beside them, and some rubbish."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import trio
from builders import STRANGE_TEXTS
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from postgresql import the_server

from examples import at_most
from superlink_trio import SuperLink, SuperLinkConfig, run_superlink
from superlink_trio.state import IN_MEMORY

fuzz = settings(
    max_examples=at_most(150),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
floats = st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300, 1.8e9]) | st.floats()
texts = st.sampled_from(
    [*STRANGE_TEXTS.values(), "None", "0", "f" * 64, "a" * 10_000, "ä\n"]
) | st.text(max_size=30)


@attrs.frozen
class Database:
    """What rubbish is sent to."""

    make: Callable[[], str]
    """Gives a `--database`."""
    huge: int
    """Items of a list that is huge for it: with each it is asked several times."""


DATABASES = {
    "memory": Database(lambda: IN_MEMORY, huge=20_000),
    # Pickier than SQLite.
    "postgres": Database(lambda: the_server().new_schema(), huge=1_000),
}

STORES = ["memory", pytest.param("postgres", marks=pytest.mark.once)]
"""Their names, to be the parameters of a fixture."""


class Beside:
    """A SuperLink in a thread of its own, as examples follow each other without a Trio program."""

    def __init__(self, **options: Any) -> None:
        self._config = SuperLinkConfig(
            insecure=True,
            driver_api_address="127.0.0.1:0",
            grpc_rere_fleet_api_address="127.0.0.1:0",
            driver_hold=0,
            **options,
        )
        self._started: queue.Queue[SuperLink] = queue.Queue()
        self._thread = threading.Thread(target=trio.run, args=[self._main], daemon=True)
        self._thread.start()
        self.link = self._started.get(timeout=30)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._started.put(await nursery.start(run_superlink, self._config))

    def close(self) -> None:
        """Stop it, and wait for its end."""
        trio.from_thread.run(self.link.stop, trio_token=self._token)
        self._thread.join(timeout=30)
