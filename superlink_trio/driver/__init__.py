"""What the Driver API does, whatever transport carries it."""

from superlink_trio.driver.api import driver_api
from superlink_trio.driver.rounds import Rounds, RoundView
from superlink_trio.driver.service import DriverService

__all__ = ["DriverService", "RoundView", "Rounds", "driver_api"]
