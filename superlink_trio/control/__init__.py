"""The Control API: what the command line `flwr` of Flower 1.21 and later asks for."""

from superlink_trio.control.api import control_api
from superlink_trio.control.service import TodaysFlower

__all__ = ["TodaysFlower", "control_api"]
