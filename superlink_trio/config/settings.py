"""Values as people gave them, before they are a config."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs

from superlink_trio.config.options import Option, Section

if TYPE_CHECKING:
    from superlink_trio.config.superlink import SuperLinkConfig


@attrs.frozen
class Setting:
    """A value that somebody gave."""

    value: Any
    source: str
    """Where it was given, as that person would write it: `--hold`, `superlink.toml: hold`."""
    rank: int
    """Of two, the one with the higher rank counts."""


@attrs.frozen
class Table:
    """Every option there is, by name and in order, and the config that they make."""

    config: type[SuperLinkConfig]
    options: Mapping[str, Option]

    def by_section(self) -> Iterator[tuple[Section, Iterator[Option]]]:
        """Give the options under each heading."""
        return groupby(self.options.values(), key=attrgetter("section"))


@attrs.define
class Settings:
    """What was given, by option name, and what was wrong with it."""

    table: Table
    given: dict[str, Setting] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    unclear: set[str] = attrs.field(factory=set)
    """Options that have a fault already: no rule about them can be judged."""

    def get(self, name: str) -> Any:
        """Answer the option's value, None if nobody gave one."""
        setting = self.given.get(name)
        return None if setting is None else setting.value

    def fault(self, problem: str, *names: str) -> None:
        """Note a fault that makes these options unclear."""
        self.faults.append(problem)
        self.unclear.update(names)

    def read(
        self, name: str, source: str, rank: int, read: Callable[[Any], object], raw: object
    ) -> None:
        """Take what `read` makes of `raw`, unless there is a higher value.

        A ValueError is a fault.
        """
        try:
            setting = Setting(read(raw), source, rank)
        except ValueError as error:
            self.fault(f"{source}: {error}", name)
            return
        if name not in self.given or self.given[name].rank <= rank:
            self.given[name] = setting

    def settle(self, name: str, *candidates: Setting | None) -> None:
        """Let the highest of several settings for one thing count; equals have to agree."""
        given = [setting for setting in candidates if setting is not None]
        if not given:
            return
        rank = max(setting.rank for setting in given)
        first, *others = [setting for setting in given if setting.rank == rank]
        self.given[name] = first
        for other in others:
            if other.value != first.value:
                self.fault(f"{first.source} and {other.source} disagree: leave one out", name)
