"""How the command line, the environment and a file become one config.

The command line wins, then the environment, then the file. Everything here is a plain function
of what was given: nothing is printed, nothing exits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

from superlink_trio.config.aliases import FLOWER_NAMES, SWITCHES, fold
from superlink_trio.config.kinds import FILE, choice
from superlink_trio.config.options import (
    PREFIX,
    Apis,
    Option,
    Section,
    options_of,
    problem_with,
)
from superlink_trio.config.settings import Settings, Table
from superlink_trio.config.superlink import SuperLinkConfig

PROGRAM = (
    Option(
        *("config", Section.GENERAL, Apis.BOTH, FILE),
        "a TOML file with options, by their names without the dashes in front",
    ),
    Option(
        *("log_level", Section.GENERAL, Apis.BOTH, choice("debug", "info", "warning", "error")),
        "the least that is worth a log line",
        reloads=True,
        default="info",
    ),
    Option(
        *("log_format", Section.GENERAL, Apis.BOTH, choice("text", "json")),
        "lines for people, or a JSON object a line",
        default="text",
    ),
)
"""Options of the program itself, which no config has."""

_FILE, _ENVIRONMENT, _COMMAND_LINE = range(3)

# Kubernetes and Docker describe a service called superlink-something to its neighbours so.
_SERVICE_LINK = re.compile(r"SUPERLINK_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?", re.ASCII)
# A line of TOML whose value is no string, list, table, or nothing.
_BARE_WORD = re.compile(r"\s*([\w-]+)\s*=\s*([^\s\"'\[{#][^\"'#]*?)\s*(?:#.*)?")


def table(config: type[SuperLinkConfig]) -> Table:
    """Make the table of all options that there are for a config, in their order."""
    options = (*PROGRAM, *SWITCHES, *options_of(config), *FLOWER_NAMES)
    sections = list(Section)
    in_order = sorted(options, key=lambda option: sections.index(option.section))
    return Table(config, {option.name: option for option in in_order})


OPTIONS = table(SuperLinkConfig)


def read_sources(
    settings: Settings,
    command_line: Mapping[str, bool | list[str]],
    environ: Mapping[str, str],
) -> None:
    """Take what all sources say; `command_line` has flags, and the words that followed others."""
    read_command_line(settings, command_line)
    read_environment(settings, environ)
    if "config" in settings.given:
        read_file(settings, settings.get("config"))
    fold(settings)


def read_command_line(settings: Settings, given: Mapping[str, bool | list[str]]) -> None:
    """Take the words that followed each option, or whether a flag was set."""
    for name, words in given.items():
        option = settings.table.options[name]
        read = bool if isinstance(words, bool) else option.kind.from_words
        settings.read(name, option.flag, _COMMAND_LINE, read, words)


def read_environment(settings: Settings, environ: Mapping[str, str]) -> None:
    """Take the variables that are set to something."""
    variables = {option.variable: option for option in settings.table.options.values()}
    for variable, text in environ.items():
        if not text or not variable.startswith(PREFIX):
            continue
        option = variables.get(variable)
        if option is not None:
            settings.read(option.name, variable, _ENVIRONMENT, option.kind.from_text, text)
        elif not _SERVICE_LINK.fullmatch(variable):
            settings.warnings.append(
                f"{variable}: no such variable{did_you_mean(suggestion(variable, variables))}"
            )


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
    known = {name: option for name, option in settings.table.options.items() if name != "config"}
    seen: dict[str, str] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        source = f"{path}: {key}"
        if name not in known:
            meant = suggestion(key.replace("_", "-"), [option.key for option in known.values()])
            unclear = [meant.replace("-", "_")] if meant else []
            settings.fault(f"{source}: no such option{did_you_mean(meant)}", *unclear)
        elif name in seen:
            settings.fault(f"{source}: is there already, as {seen[name]}", name)
        else:
            seen[name] = key
            settings.read(name, source, _FILE, known[name].kind.from_toml, value)


def suggestion(name: str, names: Iterable[str]) -> str | None:
    """Answer what was probably meant."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(meant: str | None) -> str:
    """Answer the end of a sentence that says something does not exist."""
    return f"; did you mean {meant}?" if meant else ""


def build(settings: Settings, apis: Apis) -> SuperLinkConfig:
    """Make the config of the values that are sound, and add what else is wrong to the faults."""
    sound = {}
    for field in attrs.fields(settings.table.config):
        setting = settings.given.get(field.name)
        if setting is None:
            continue
        problem = problem_with(field, setting.value)
        if problem is None:
            sound[field.name] = setting.value
        else:
            settings.fault(f"{setting.source}: {problem}", field.name)
    config = settings.table.config(**sound)
    for fault in config.faults(apis):
        if settings.unclear.isdisjoint(fault.fields):
            sources = [
                settings.given[name].source for name in fault.fields if name in settings.given
            ]
            settings.faults.append(": ".join([*sources[:1], fault.problem]))
    settings.warnings += config.warnings(apis)
    return config
