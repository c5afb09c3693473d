"""What the Driver API does, whatever transport carries it."""

from __future__ import annotations

from superlink_trio.driver.api import driver_api
from superlink_trio.driver.progress import Progress

__all__ = ["Progress", "driver_api"]
