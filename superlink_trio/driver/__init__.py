"""What the Driver API does, whatever transport carries it."""

from superlink_trio.driver.api import driver_api
from superlink_trio.driver.service import DriverService

__all__ = ["DriverService", "driver_api"]
