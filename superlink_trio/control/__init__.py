"""The Control API: what the command line `flwr` of Flower 1.23 and later asks for."""

from superlink_trio.control.api import control_api
from superlink_trio.control.service import FlowerService

__all__ = ["FlowerService", "control_api"]
