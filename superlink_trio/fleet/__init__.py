"""What the Fleet API does, whatever transport carries it."""

from __future__ import annotations

from superlink_trio.fleet.adapter import adapter_api, refusing_adapter_api
from superlink_trio.fleet.api import fleet_api

__all__ = ["adapter_api", "fleet_api", "refusing_adapter_api"]
