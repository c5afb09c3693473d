"""Trying a configuration without starting anything: its files, its database, its addresses."""

from __future__ import annotations

import math

import attrs
import trio

from superlink_trio.config import (
    MEMORY,
    Address,
    Apis,
    ConfigError,
    ConfigErrors,
    Settings,
    SuperLinkConfig,
)
from superlink_trio.credentials import load
from superlink_trio.state import CannotOpen, StateUnavailable, is_postgres
from superlink_trio.state.sqlite.opening import IN_MEMORY, Database, look
from superlink_trio.transport.grpc.listen import resolve
from superlink_trio.transport.listening import AddressError


def try_out(settings: Settings, config: SuperLinkConfig, apis: Apis) -> str:
    """Note what would keep these APIs from starting, and say what would be served.

    `config` is what was made of the settings. What they left unclear is not tried.
    """
    trial = _Trial(settings)
    trial.read_files(config, apis)
    trial.open_database(config.database)
    trio.run(trial.bind_addresses, config, apis)
    return ", ".join(trial.found)


def _version(database: str) -> int:
    """Give the version of a database's schema, 0 for none. Raises CannotOpen, StateUnavailable."""
    if is_postgres(database):
        from superlink_trio.state.postgres import opening  # an extra

        return opening.look(database)
    return look(Database(database, patience=0, max_bytes=math.inf))


@attrs.frozen
class _Trial:
    settings: Settings
    found: list[str] = attrs.field(factory=list)

    def read_files(self, config: SuperLinkConfig, apis: Apis) -> None:
        try:
            load(config, apis)
        except ConfigErrors as errors:
            for fault in errors.faults:
                self.settings.note(fault)

    def open_database(self, database: str) -> None:
        if "database" in self.settings.unclear:
            return
        if database in (MEMORY, IN_MEMORY):
            self.found.append("state in memory")
            return
        try:
            version = _version(database)
        except (CannotOpen, StateUnavailable) as error:
            self.settings.note(ConfigError(str(error), "database"))
            return
        schema = f"schema {version}" if version else "no schema yet"
        # In a URL there may be a password.
        name = "PostgreSQL" if is_postgres(database) else database
        self.found.append(f"database {name} ({schema})")

    async def bind_addresses(self, config: SuperLinkConfig, apis: Apis) -> None:
        for place in config.places(apis):
            about = (place.field, "fleet_api_address", "fleet_api_type", "insecure", "certificates")
            await self._bind(place.api, place.address, about)
        if config.admin_address is not None:
            await self._bind("the admin surface", config.admin_address, ("admin_address",))

    async def _bind(self, what: str, address: Address, about: tuple[str, ...]) -> None:
        if not self.settings.unclear.isdisjoint(about):
            return
        try:
            await resolve(address)
        except (AddressError, ValueError) as error:
            self.settings.note(ConfigError(str(error), about[0]))
        else:
            self.found.append(f"{what} on {address}")
