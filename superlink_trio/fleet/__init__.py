"""What the Fleet API does, whatever transport carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superlink_trio.fleet.adapter import adapter_api, refusing_adapter_api
    from superlink_trio.fleet.api import fleet_api

__all__ = ["adapter_api", "fleet_api", "refusing_adapter_api"]

_HOMES = {"adapter_api": "adapter", "fleet_api": "api", "refusing_adapter_api": "adapter"}


def __getattr__(name: str) -> Any:
    # A worker process of a simulation needs `fleet.simulation.worker` alone, and neither Trio nor
    # anything else that the APIs stand on.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
