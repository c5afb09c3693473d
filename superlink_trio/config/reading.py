"""What the command line, the environment and a file say, before it is a config.

The command line wins, then the environment, then the file. Everything here is a plain function
of what was given: nothing is printed, nothing exits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from superlink_trio.config.checks import ConfigError
from superlink_trio.config.options import PREFIX, Option, Section

if TYPE_CHECKING:
    from superlink_trio.config.superlink import SuperLinkConfig

FILE, ENVIRONMENT, COMMAND_LINE = range(3)
"""The ranks of the sources."""

# Kubernetes and Docker describe a service called superlink-something to its neighbours so.
_SERVICE_LINK = re.compile(r"SUPERLINK_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?", re.ASCII)
# A line of TOML whose value is no string, list, table, or nothing.
_BARE_WORD = re.compile(r"\s*([\w-]+)\s*=\s*([^\s\"'\[{#][^\"'#]*?)\s*(?:#.*)?")


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
        return self.given[name].value if name in self.given else None

    def fault(self, problem: str, *names: str) -> None:
        """Note a fault that makes these options unclear."""
        self.faults.append(problem)
        self.unclear.update(names)

    def note(self, fault: ConfigError) -> None:
        """Note a fault by where its values were given, unless an option of it is unclear."""
        if self.unclear.isdisjoint(fault.fields):
            sources = [self.given[name].source for name in fault.fields if name in self.given]
            self.faults.append(": ".join([*sources[:1], fault.problem]))

    def read(
        self, option: Option, source: str, rank: int, read: Callable[[Any], object], raw: object
    ) -> None:
        """Take what `read` makes of `raw`, unless there is a higher value.

        A ValueError is a fault.
        """
        try:
            value = read(raw)
        except ValueError as error:
            self.fault(f"{source}: {error}", option.name)
            return
        if not option.short_for:
            self.take(option.name, Setting(value, source, rank))
        elif value:
            self.take(option.short_for, Setting(option.key, source, rank))

    def take(self, name: str, setting: Setting) -> None:
        """Take a setting, unless there is one of a higher rank; equals have to agree."""
        known = self.given.get(name)
        if known is None or known.rank < setting.rank:
            self.given[name] = setting
        elif known.rank == setting.rank and known.value != setting.value:
            self.fault(f"{known.source} and {setting.source} disagree: leave one out", name)


def read_sources(
    settings: Settings,
    command_line: Mapping[str, bool | list[str]],
    environ: Mapping[str, str],
) -> None:
    """Take what all sources say; `command_line` has flags, and the words that followed others."""
    for name, words in command_line.items():
        option = settings.table.options[name]
        read = bool if isinstance(words, bool) else option.kind.from_words
        settings.read(option, option.flag, COMMAND_LINE, read, words)
    read_environment(settings, environ)
    if "config" in settings.given:
        read_file(settings, settings.get("config"))


def read_environment(settings: Settings, environ: Mapping[str, str]) -> None:
    """Take the variables that are set to something."""
    variables = {option.variable: option for option in settings.table.options.values()}
    for variable, text in environ.items():
        if not text or not variable.startswith(PREFIX):
            continue
        if variable in variables:
            # The service called superlink itself has its port in the variable of an option.
            if variable == "SUPERLINK_PORT" and text.startswith(("tcp://", "udp://")):
                continue
            option = variables[variable]
            settings.read(option, variable, ENVIRONMENT, option.kind.from_text, text)
        elif not _SERVICE_LINK.fullmatch(variable):
            hint = did_you_mean(suggestion(variable, variables))
            settings.warnings.append(f"{variable}: no such variable{hint}")


def read_file(settings: Settings, path: Path) -> None:
    """Take what a TOML file says. Its keys are the options' names, with - or _."""
    import tomllib

    text = ""
    try:
        text = path.read_text("utf-8")
        content = tomllib.loads(text)
    except OSError as error:
        settings.fault(f"{path}: {error.strerror}", *settings.table.options)
    except ValueError as error:
        problem = f"{path} is no TOML: {error}{_unquoted(text, str(error))}"
        settings.fault(problem, *settings.table.options)
    else:
        read_toml(settings, path, content)


def _unquoted(text: str, error: str) -> str:
    """Answer the end of a sentence on a fault in TOML, if the line has a word without quotes."""
    lines = text.splitlines()
    place = re.search(r"at line (\d+)", error)
    number = int(place[1]) if place else len(lines)
    found = _BARE_WORD.fullmatch(lines[number - 1]) if 0 < number <= len(lines) else None
    return f'; put it in quotes: {found[1].strip()} = "{found[2]}"' if found else ""


def read_toml(settings: Settings, path: Path, content: Mapping[str, object]) -> None:
    """Take what a file's top level says."""
    known = {option.key: option for option in settings.table.options.values()}
    del known["config"]
    seen: dict[str, str] = {}
    for name, value in content.items():
        key, source = name.replace("_", "-"), f"{path}: {name}"
        if key not in known:
            meant = suggestion(key, known)
            unclear = [known[meant].name] if meant else []
            settings.fault(f"{source}: no such option{did_you_mean(meant)}", *unclear)
        elif key in seen:
            settings.fault(f"{source}: is there already, as {seen[key]}", known[key].name)
        else:
            seen[key] = name
            settings.read(known[key], source, FILE, known[key].kind.from_toml, value)


def suggestion(name: str, names: Iterable[str]) -> str | None:
    """Answer what was probably meant."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(meant: str | None) -> str:
    """Answer the end of a sentence that says something does not exist."""
    return f"; did you mean {meant}?" if meant else ""
