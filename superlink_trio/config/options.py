"""What an option is. An option of a config is declared once, as an attrs field:

    hold: float = attrs.field(
        default=20.0,
        converter=to_seconds,
        metadata=option(Section.FLEET, Apis.FLEET, SECONDS, "how long a node's pull waits"),
    )

The command line, `SUPERLINK_HOLD`, the key in a file, `--help` and the document follow from it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

import attrs

from superlink_trio.config.kinds import Kind

PREFIX = "SUPERLINK_"
"""What the names of all environment variables begin with."""


class Apis(enum.Flag):
    """Which APIs a program runs."""

    DRIVER = enum.auto()
    FLEET = enum.auto()
    BOTH = DRIVER | FLEET


class Section(enum.Enum):
    """The headings that options stand under, in this order."""

    GENERAL = "general"
    SECURITY = "TLS and node authentication"
    DRIVER = "Driver API"
    FLEET = "Fleet API"
    REST = "Fleet API over REST"
    CURRENT = "Flower 1.35 and later"
    CONTROL = "Control API, for flwr"
    LIMITS = "limits"
    ADMIN = "for operators"
    SIMULATION = "simulation"
    FLOWER = "names of Flower's own programs"


@attrs.frozen
class Option:
    """One option: `--some-name`, `SUPERLINK_SOME_NAME`, and `some-name` in a file."""

    name: str
    """With underscores."""
    section: Section
    apis: Apis
    """The programs that run any of these APIs have it."""
    kind: Kind
    help: str
    reloads: bool = attrs.field(default=False, kw_only=True)
    """Whether SIGHUP lets another value count; of others it takes a restart."""
    default: str = attrs.field(default="", kw_only=True)
    """What it is when nobody gives it, as on the command line; empty for nothing."""
    common: bool = attrs.field(default=False, kw_only=True)
    """Whether it is one of the few that `--help` shows; `--help-all` shows all."""
    short_for: str = attrs.field(default="", kw_only=True)
    """The option that has this one's key as its value, where this flag is set."""

    @property
    def negatable(self) -> bool:
        """Whether `--no-some-name` exists."""
        return not self.kind.metavar and not self.short_for

    @property
    def key(self) -> str:
        """As in a file."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """As on the command line."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """As in the environment."""
        return PREFIX + self.name.upper()


def option(
    section: Section,
    apis: Apis,
    kind: Kind,
    help: str,
    *,
    reloads: bool = False,
    shown_default: str = "",
    common: bool = False,
) -> dict[str, Option]:
    """Make the metadata that make an attrs field an option.

    `reloads`: whether it can change while it is used. `shown_default` is for a default that says
    little by itself, such as None.
    """
    given = Option("", section, apis, kind, help, default=shown_default, common=common)
    return {"option": attrs.evolve(given, reloads=reloads)}


def options_of(config: type[attrs.AttrsInstance]) -> Iterator[Option]:
    """Give an option for each field of a class whose fields all have defaults."""
    defaults = config()
    for field in attrs.fields(config):
        declared: Option = field.metadata["option"]
        default = getattr(defaults, field.name)
        shown = "" if default is None else declared.kind.to_text(default)
        yield attrs.evolve(declared, name=field.name, default=declared.default or shown)


def problem_with(field: attrs.Attribute[Any], value: object) -> str | None:
    """Say what is wrong with a field's value by itself, or None."""
    if value is None and field.default is None:
        return None
    declared: Option = field.metadata["option"]
    return declared.kind.problem(value)
