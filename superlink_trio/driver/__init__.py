"""What the Driver API does, whatever transport carries it."""

from superlink_trio.driver.api import driver_api
from superlink_trio.driver.progress import Progress
from superlink_trio.driver.service import DriverService

__all__ = ["DriverService", "Progress", "driver_api"]
