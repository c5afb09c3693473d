"""The settings of a SuperLink, wherever they come from, and everything that can be wrong with them.

address, places     where things are
kinds, options      what values and options are
limits, superlink   the config: each field is an option, declared once
checks, errors      what is wrong about values together, and how that is raised
aliases, settings   values as people give them, and what stands for others
reading             command line, environment and file → config
changes             what differs between two configs, and what of it can count at once
"""

from superlink_trio.config.address import Address
from superlink_trio.config.errors import CannotStart, ConfigError, ConfigErrors
from superlink_trio.config.kinds import Files
from superlink_trio.config.limits import Limits
from superlink_trio.config.options import Apis, Option, Section, option
from superlink_trio.config.places import MEMORY
from superlink_trio.config.reading import OPTIONS, build, read_sources, table
from superlink_trio.config.settings import Settings, Table
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
