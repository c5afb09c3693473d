"""What the Fleet API does, whatever transport carries it."""

from superlink_trio.fleet.adapter import adapter_api, refusing_adapter_api
from superlink_trio.fleet.api import fleet_api
from superlink_trio.fleet.attendance import MOST_VIEWS
from superlink_trio.fleet.nodes import NodeView, Work
from superlink_trio.fleet.presence import Presence, Tell
from superlink_trio.fleet.service import FleetService
from superlink_trio.fleet.supernodes import SuperNodes

__all__ = [
    "MOST_VIEWS",
    "FleetService",
    "NodeView",
    "Presence",
    "SuperNodes",
    "Tell",
    "Work",
    "adapter_api",
    "fleet_api",
    "refusing_adapter_api",
]
