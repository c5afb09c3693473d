"""The settings of a SuperLink, wherever they come from, and everything that can be wrong with them.

address            where things are
kinds, options     what values and options are
limits, superlink  the config: each field is an option, declared once
checks             what can be wrong with it
reading            command line, environment and file → what was given
building           every option there is; what was given → config
changes            what differs between two configs, and what of it can count at once
"""

from superlink_trio.config.address import Address
from superlink_trio.config.building import OPTIONS, build, table
from superlink_trio.config.checks import MEMORY, CannotStart, ConfigError, ConfigErrors
from superlink_trio.config.kinds import Files
from superlink_trio.config.limits import Limits
from superlink_trio.config.options import Apis, Option, Section, option
from superlink_trio.config.reading import Settings, Table, read_sources
from superlink_trio.config.superlink import Backend, FleetApiType, SuperLinkConfig

__all__ = [
    "MEMORY",
    "OPTIONS",
    "Address",
    "Apis",
    "Backend",
    "CannotStart",
    "ConfigError",
    "ConfigErrors",
    "Files",
    "FleetApiType",
    "Limits",
    "Option",
    "Section",
    "Settings",
    "SuperLinkConfig",
    "Table",
    "build",
    "option",
    "read_sources",
    "table",
]
