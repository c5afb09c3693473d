"""What the Fleet API does, whatever transport carries it."""

from superlink_trio.fleet.adapter import adapter_api, refusing_adapter_api
from superlink_trio.fleet.api import fleet_api
from superlink_trio.fleet.attendance import MOST_VIEWS, together
from superlink_trio.fleet.nodes import NodeView, Work
from superlink_trio.fleet.presence import Presence
from superlink_trio.fleet.service import FleetService
from superlink_trio.fleet.supernodes import SuperNodes

__all__ = [
    "MOST_VIEWS",
    "FleetService",
    "NodeView",
    "Presence",
    "SuperNodes",
    "Work",
    "adapter_api",
    "fleet_api",
    "refusing_adapter_api",
    "together",
]
