"""A SuperLink for Flower federations, built as one supervised Trio task tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superlink_trio.config import ConfigErrors, SuperLinkConfig
    from superlink_trio.federation import (
        ClientManager,
        FedAvg,
        History,
        Server,
        ServerConfig,
        SimpleClientManager,
        Strategy,
    )
    from superlink_trio.federation.rounds import Federation, serve_rounds
    from superlink_trio.federation.script import Interrupted, start_server
    from superlink_trio.handle import SuperLink
    from superlink_trio.superlink import run_driver_api, run_fleet_api, run_superlink

__version__ = "0.1.0"

__all__ = [
    "ClientManager",
    "ConfigErrors",
    "FedAvg",
    "Federation",
    "History",
    "Interrupted",
    "Server",
    "ServerConfig",
    "SimpleClientManager",
    "Strategy",
    "SuperLink",
    "SuperLinkConfig",
    "run_driver_api",
    "run_fleet_api",
    "run_superlink",
    "serve_rounds",
    "start_server",
]

_HOMES = {
    "ClientManager": "federation",
    "FedAvg": "federation",
    "History": "federation",
    "Server": "federation",
    "ServerConfig": "federation",
    "SimpleClientManager": "federation",
    "Strategy": "federation",
    "Federation": "federation.rounds",
    "Interrupted": "federation.script",
    "serve_rounds": "federation.rounds",
    "start_server": "federation.script",
    "ConfigErrors": "config",
    "SuperLinkConfig": "config",
    "SuperLink": "handle",
    "run_driver_api": "superlink",
    "run_fleet_api": "superlink",
    "run_superlink": "superlink",
}


def __getattr__(name: str) -> Any:
    # gRPC takes a quarter of a second to import: only who runs a SuperLink pays for it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    # What completion and help() show; they cannot know what is imported only when it is needed.
    return sorted({*globals(), *__all__})
