"""What a SuperLink is told before it starts, by whichever way, and everything that can be wrong."""

from superlink_trio.config.address import Address
from superlink_trio.config.superlink import (
    MEMORY,
    Apis,
    Backend,
    CannotStart,
    ConfigError,
    ConfigErrors,
    Files,
    FleetApiType,
    SuperLinkConfig,
)

__all__ = [
    "MEMORY",
    "Address",
    "Apis",
    "Backend",
    "CannotStart",
    "ConfigError",
    "ConfigErrors",
    "Files",
    "FleetApiType",
    "SuperLinkConfig",
]
