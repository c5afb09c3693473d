"""Every option, and how the command line, the environment and a file become one config.

The command line wins, then the environment, then the file. Everything here is a plain function
of what was given: nothing is printed, nothing exits.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from superlink_trio.config.address import Address
from superlink_trio.config.superlink import (
    BACKENDS,
    DRIVER_PORT,
    FLEET_API_TYPES,
    GRPC_FLEET_PORT,
    REST_FLEET_PORT,
    Apis,
    SuperLinkConfig,
    problem_with,
)

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")

_FLAG_WORDS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@attrs.frozen(kw_only=True)
class Kind:
    """How an option's value is written. Both readers raise ValueError, naming the value."""

    metavar: tuple[str, ...] = ()
    """A name for each word that follows the option on the command line."""
    from_words: Callable[[Sequence[str]], object]
    from_toml: Callable[[Any], object]


def _flag_from_words(words: Sequence[str]) -> bool:
    try:
        return _FLAG_WORDS[words[0].strip().lower()]
    except KeyError:
        raise ValueError(f"{words[0]!r} is neither true nor false") from None


def _flag_from_toml(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is neither true nor false")


def _number(read: type[int] | type[float], what: str, metavar: str) -> Kind:
    def from_words(words: Sequence[str]) -> float:
        try:
            return read(words[0])
        except ValueError:
            raise ValueError(f"{words[0]!r} is no {what}") from None

    def from_toml(value: Any) -> float:
        if isinstance(value, (int, read)) and not isinstance(value, bool):
            with suppress(OverflowError):
                return read(value)
        raise ValueError(f"{value!r} is no {what}")

    return Kind(metavar=(metavar,), from_words=from_words, from_toml=from_toml)


def _text(metavar: str, read: Callable[[str], object]) -> Kind:
    def from_toml(value: Any) -> object:
        if isinstance(value, str):
            return read(value)
        raise ValueError(f"{value!r} is no text: put it in quotes")

    return Kind(metavar=(metavar,), from_words=lambda words: read(words[0]), from_toml=from_toml)


def _choice(*choices: str) -> Kind:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return _text("{" + ",".join(choices) + "}", read)


def _path(text: str) -> Path:
    if not text:
        raise ValueError("'' is no path")
    return Path(text)


def _files(*metavar: str) -> Kind:
    def read(words: Any) -> tuple[Path, ...]:
        if (
            not isinstance(words, list)
            or len(words) != len(metavar)
            or not all(isinstance(word, str) for word in words)
        ):
            raise ValueError(f"{words!r} must be {len(metavar)} paths: {', '.join(metavar)}")
        return tuple(map(_path, words))

    return Kind(metavar=metavar, from_words=read, from_toml=read)


def _json_object(text: str) -> object:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no JSON: {error}") from None
    if isinstance(value, dict):
        return value
    raise ValueError(f"{text!r} is no JSON object")


def _table_or_json(value: Any) -> object:
    return value if isinstance(value, dict) else JSON_TEXT.from_toml(value)


def parse_size(text: str) -> int:
    """Read a number of bytes: `1048576`, `512MiB`, `1.5 GB`. Raises ValueError."""
    found = _SIZE.fullmatch(text.strip())
    unit = None if found is None else _UNITS.get((found[2] or "B").lower())
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no size: write bytes, or a number with {_UNIT_NAMES}")
    # Every digit of a whole number counts.
    return int(found[1]) * unit if found[1].isdigit() else int(float(found[1]) * unit)


def size_text(size: int) -> str:
    """Write a number of bytes as people do, where that is exact."""
    for name in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _UNITS[name.lower()] == 0:
            return f"{size // _UNITS[name.lower()]}{name}"
    return str(size)


def _size_from_toml(value: Any) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError(f"{value!r} is no size: write bytes, or text like '512MiB'")


# A line of TOML whose value is no string, list, table, or nothing.
_BARE_WORD = re.compile(r"\s*([\w-]+)\s*=\s*([^\s\"'\[{#][^\"'#]*?)\s*(?:#.*)?")
# More digits than any size has are not worth reading.
_SIZE = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]+)?", re.ASCII)
_UNITS = {"b": 1} | {
    f"{letter}{suffix}".lower(): base**power
    for power, letter in enumerate("KMGT", 1)
    for suffix, base in (("iB", 1024), ("B", 1000))
}
_UNIT_NAMES = "KiB, MiB, GiB, TiB, kB, MB, GB or TB"

FLAG = Kind(from_words=_flag_from_words, from_toml=_flag_from_toml)
SECONDS = _number(float, "number of seconds", "SECONDS")
COUNT = _number(int, "whole number", "N")
SIZE = Kind(
    metavar=("SIZE",), from_words=lambda words: parse_size(words[0]), from_toml=_size_from_toml
)
ADDRESS = _text("HOST:PORT", Address.parse)
FILE = _text("FILE", _path)
DIRECTORY = _text("DIR", _path)
JSON_TEXT = _text("JSON", _json_object)


@attrs.frozen
class Option:
    """One option: `--some-name`, `SUPERLINK_SOME_NAME`, and `some-name` in a file."""

    name: str
    """With underscores; a field of `SuperLinkConfig` unless it is folded into one."""
    kind: Kind
    help: str
    apis: Apis = Apis.BOTH
    """The programs that run any of these APIs have it."""
    negatable: bool = False
    """Whether `--no-some-name` exists."""

    @property
    def flag(self) -> str:
        """As on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As in the environment."""
        return _PREFIX + self.name.upper()

    @property
    def default(self) -> str:
        """What it is when nobody says anything, as on the command line; empty for nothing."""
        if self.name in _DEFAULTS:
            return _DEFAULTS[self.name]
        field = attrs.fields_dict(SuperLinkConfig).get(self.name)
        if field is None or field.default is None:
            return ""
        if isinstance(field.default, bool):
            return "on" if field.default else "off"
        if self.kind is SIZE:
            return size_text(field.default)
        if isinstance(field.default, float):
            return f"{field.default:g}"
        return str(field.default)


def _everywhere_or_here(port: int) -> str:
    return f"0.0.0.0:{port}; localhost:{port} without TLS and --insecure"


_PREFIX = "SUPERLINK_"
# Kubernetes and Docker describe a service called superlink-something to its neighbours so.
_SERVICE_LINK = re.compile(r"SUPERLINK_(\w+_)?(SERVICE_(HOST|PORT)|PORT)(_\w+)?", re.ASCII)
_DEFAULTS = {
    "driver_api_address": _everywhere_or_here(DRIVER_PORT),
    "grpc_rere_fleet_api_address": _everywhere_or_here(GRPC_FLEET_PORT),
    "rest_fleet_api_address": _everywhere_or_here(REST_FLEET_PORT),
    "backend_config": json.dumps(SuperLinkConfig().backend_config),
    "app_dir": "the working directory",
    "fleet_api_num_workers": "1",
    "max_stored_size": "half of the memory, or of the disk",
    "log_level": "info",
    "log_format": "text",
}

GROUPS: Mapping[str, tuple[Option, ...]] = {
    "general": (
        Option(
            "database",
            _text("DATABASE", str),
            "where nodes, runs and tasks are kept",
        ),
        Option(
            "config",
            FILE,
            "a TOML file with options, by their names without the dashes in front",
        ),
        Option("log_level", _choice(*LOG_LEVELS), "the least that is worth a log line"),
        Option("log_format", _choice(*LOG_FORMATS), "lines for people, or a JSON object a line"),
        Option(
            "grace",
            SECONDS,
            "how long calls in flight, or apps of simulated nodes, may go on when it is to stop",
        ),
    ),
    "TLS and node authentication": (
        Option(
            "insecure", FLAG, "serve without TLS, whatever certificates there are", negatable=True
        ),
        Option(
            "certificates",
            _files("CA_CERT", "SERVER_CERT", "PRIVATE_KEY"),
            "PEM files for the gRPC ports, and for REST unless it has its own",
        ),
        Option(
            "require_client_authentication",
            _files("CLIENT_KEYS", "SERVER_PRIVATE_KEY", "SERVER_PUBLIC_KEY"),
            "admit only nodes whose public key is listed: a CSV file of OpenSSH public keys, then "
            "the server's two OpenSSH key files",
        ),
    ),
    "Driver API": (
        Option("driver_api_address", ADDRESS, "where drivers connect", Apis.DRIVER),
        Option(
            "driver_client_ca",
            FILE,
            "let in only drivers with a certificate that an authority in this PEM file signed",
            Apis.DRIVER,
        ),
        Option(
            "driver_hold",
            SECONDS,
            "how long a driver's pull waits for all its results, while one follows the other; "
            "0 answers at once",
            Apis.DRIVER,
        ),
    ),
    "Fleet API": (
        Option("grpc_rere", FLAG, "serve nodes over gRPC (this is the default)", Apis.FLEET),
        Option("rest", FLAG, "serve nodes over REST", Apis.FLEET),
        Option("vce", FLAG, "simulate the nodes", Apis.FLEET),
        Option("grpc_rere_fleet_api_address", ADDRESS, "where nodes connect over gRPC", Apis.FLEET),
        Option(
            "hold",
            SECONDS,
            "how long a node's pull waits for a task; 0 answers at once",
            Apis.FLEET,
        ),
        Option(
            "readmit",
            FLAG,
            "take nodes back that a SuperLink before this one had registered",
            Apis.FLEET,
            negatable=True,
        ),
    ),
    "Fleet API over REST": (
        Option("rest_fleet_api_address", ADDRESS, "where nodes connect over REST", Apis.FLEET),
        Option("ssl_certfile", FILE, "PEM certificate for REST"),
        Option("ssl_keyfile", FILE, "PEM private key for REST"),
        Option("rest_fleet_api_workers", COUNT, "1: another number is refused", Apis.FLEET),
    ),
    "limits": (
        Option("max_message_size", SIZE, "the largest message, on every port and both ways"),
        Option("max_header_size", SIZE, "the largest header of a call"),
        Option(
            "request_timeout",
            SECONDS,
            "how long a handshake or the head of a request may take; over REST its body too, "
            "beside its time at 4 KiB/s",
        ),
        Option("max_connections", COUNT, "connections to one API"),
        Option(
            "max_calls", COUNT, "calls under way on one API; held ones are answered to make room"
        ),
        Option("max_nodes", COUNT, "registered nodes; those offline give way", Apis.FLEET),
        Option(
            "max_tasks_per_node",
            COUNT,
            "tasks of one node without an answer; anonymous nodes count as one",
            Apis.DRIVER,
        ),
        Option(
            "max_stored_size",
            SIZE,
            "payloads and tasks that are kept; answers may fill all of it, tasks half",
        ),
    ),
    "simulation": (
        Option(
            "client_app",
            _text("MODULE:ATTRIBUTE", str),
            "the app that simulated nodes run, client:app for example",
            Apis.FLEET,
        ),
        Option("num_supernodes", COUNT, "how many nodes to simulate", Apis.FLEET),
        Option("backend", _choice(*BACKENDS), "what runs the apps", Apis.FLEET),
        Option(
            "backend_config",
            Kind(metavar=("JSON",), from_words=JSON_TEXT.from_words, from_toml=_table_or_json),
            "settings of the backend",
            Apis.FLEET,
        ),
        Option("app_dir", DIRECTORY, "put on the import path to find the app", Apis.FLEET),
    ),
    "names of Flower 1.9 to 1.11": (
        Option(
            "fleet_api_type",
            _choice(*FLEET_API_TYPES),
            "like --grpc-rere, --rest and --vce; both gRPC names serve both gRPC services",
            Apis.FLEET,
        ),
        Option("fleet_api_address", ADDRESS, "the address of the chosen Fleet API", Apis.FLEET),
        Option("fleet_api_num_workers", COUNT, "another number than 1 is not used", Apis.FLEET),
        Option(
            "ssl_ca_certfile",
            FILE,
            "together with --ssl-certfile and --ssl-keyfile: the same as --certificates",
        ),
        Option("storage_dir", DIRECTORY, "not used: fabs are kept in the database"),
        Option("auth_list_public_keys", FILE, "CLIENT_KEYS of --require-client-authentication"),
        Option(
            "auth_superlink_private_key",
            FILE,
            "SERVER_PRIVATE_KEY of --require-client-authentication",
        ),
        Option(
            "auth_superlink_public_key",
            FILE,
            "SERVER_PUBLIC_KEY of --require-client-authentication",
        ),
    ),
}

OPTIONS: Mapping[str, Option] = {
    option.name: option for options in GROUPS.values() for option in options
}


@attrs.frozen
class Setting:
    """A value that somebody gave."""

    value: Any
    source: str
    """Where it was said, as that person would write it: `--hold`, `superlink.toml: hold`."""
    rank: int
    """Of two, the one with the higher rank counts."""


_FILE, _ENVIRONMENT, _COMMAND_LINE = range(3)


@attrs.define
class Settings:
    """What was given, by option name, and what was wrong with it."""

    given: dict[str, Setting] = attrs.field(factory=dict)
    faults: list[str] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    unclear: set[str] = attrs.field(factory=set)
    """Options that have a fault already: no rule about them can be judged."""

    def get(self, name: str) -> Any:
        """Answer the option's value, None if nobody gave one."""
        setting = self.given.get(name)
        return None if setting is None else setting.value

    def put(self, setting: Setting, name: str) -> None:
        """Take a value unless there is a higher one."""
        if name not in self.given or self.given[name].rank <= setting.rank:
            self.given[name] = setting

    def fault(self, problem: str, *names: str) -> None:
        """Note a fault that makes these options unclear."""
        self.faults.append(problem)
        self.unclear.update(names)

    def read(
        self, name: str, source: str, rank: int, read: Callable[[Any], object], raw: object
    ) -> None:
        """Take what `read` makes of `raw`; its ValueError is a fault."""
        try:
            self.put(Setting(read(raw), source, rank), name)
        except ValueError as error:
            self.fault(f"{source}: {error}", name)


def read_command_line(settings: Settings, given: Mapping[str, bool | list[str]]) -> None:
    """Take the words that followed each option, or whether a flag was set."""
    for name, words in given.items():
        option = OPTIONS[name]
        if isinstance(words, bool):
            settings.put(Setting(words, option.flag, _COMMAND_LINE), name)
        else:
            settings.read(name, option.flag, _COMMAND_LINE, option.kind.from_words, words)


def read_environment(settings: Settings, environ: Mapping[str, str]) -> None:
    """Take the variables that are set to something; several words are split as a shell does."""
    variables = {option.variable: option for option in OPTIONS.values()}
    for variable, text in environ.items():
        if not text or not variable.startswith(_PREFIX):
            continue
        option = variables.get(variable)
        if option is not None:
            settings.read(option.name, variable, _ENVIRONMENT, partial(_from_text, option), text)
        elif not _SERVICE_LINK.fullmatch(variable):
            settings.warnings.append(
                f"{variable}: no such variable{did_you_mean(suggestion(variable, variables))}"
            )


def _from_text(option: Option, text: str) -> object:
    return option.kind.from_words(shlex.split(text) if len(option.kind.metavar) > 1 else [text])


def read_file(settings: Settings, path: Path) -> None:
    """Take what a TOML file says. Its keys are the options' names, with - or _."""
    import tomllib

    text = ""
    try:
        text = path.read_text("utf-8")
        table = tomllib.loads(text)
    except OSError as error:
        settings.fault(f"{path}: {error.strerror}", *OPTIONS)
        return
    except ValueError as error:
        settings.fault(f"{path} is no TOML: {error}{_unquoted(text, str(error))}", *OPTIONS)
        return
    read_table(settings, path, table)


def _unquoted(text: str, error: str) -> str:
    """Answer the end of a sentence on a fault in TOML, if the line has a word without quotes."""
    lines = text.splitlines()
    place = re.search(r"at line (\d+)", error)
    number = int(place[1]) if place else len(lines)
    found = _BARE_WORD.fullmatch(lines[number - 1]) if 0 < number <= len(lines) else None
    return f'; put it in quotes: {found[1].strip()} = "{found[2]}"' if found else ""


def read_table(settings: Settings, path: Path, table: Mapping[str, object]) -> None:
    """Take what a file's top level says."""
    seen: dict[str, str] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        source = f"{path}: {key}"
        if name not in OPTIONS or name == "config":
            keys = [known.replace("_", "-") for known in OPTIONS if known != "config"]
            meant = suggestion(key.replace("_", "-"), keys)
            unclear = [meant.replace("-", "_")] if meant else []
            settings.fault(f"{source}: no such option{did_you_mean(meant)}", *unclear)
        elif name in seen:
            settings.fault(f"{source}: is there already, as {seen[name]}", name)
        else:
            seen[name] = key
            settings.read(name, source, _FILE, OPTIONS[name].kind.from_toml, value)


def suggestion(name: str, names: Iterable[str]) -> str | None:
    """Answer what was probably meant."""
    import difflib

    return next(iter(difflib.get_close_matches(name, list(names), n=1)), None)


def did_you_mean(meant: str | None) -> str:
    """Answer the end of a sentence that says something does not exist."""
    return f"; did you mean {meant}?" if meant else ""


def fold(settings: Settings) -> None:
    """Turn the options that stand for others into those, so that only a config's fields are left.

    Where both are given, the higher rank counts, and at the same rank they have to agree.
    """
    _fold_fleet_api_type(settings)
    _fold_fleet_api_address(settings)
    _fold_ssl_ca_certfile(settings)
    _fold_authentication(settings)
    workers = settings.given.get("fleet_api_num_workers")
    if workers is not None and workers.value != 1:
        settings.warnings.append(
            f"{workers.source}: one process serves every call, not {workers.value}"
        )
    storage = settings.given.get("storage_dir")
    if storage is not None:
        settings.warnings.append(f"{storage.source}: not used, fabs are kept in the database")


def _settle(settings: Settings, name: str, *candidates: Setting | None) -> None:
    """Let the highest of several settings for one thing count."""
    given = [setting for setting in candidates if setting is not None]
    if not given:
        return
    rank = max(setting.rank for setting in given)
    first, *others = [setting for setting in given if setting.rank == rank]
    settings.given[name] = first
    for other in others:
        if other.value != first.value:
            settings.fault(f"{first.source} and {other.source} disagree: leave one out", name)


def _fold_fleet_api_type(settings: Settings) -> None:
    flags = [
        attrs.evolve(setting, value=flag.replace("_", "-"))
        for flag in ("grpc_rere", "rest", "vce")
        if (setting := settings.given.get(flag)) is not None and setting.value
    ]
    _settle(settings, "fleet_api_type", *flags, settings.given.get("fleet_api_type"))


def _fold_fleet_api_address(settings: Settings) -> None:
    address = settings.given.get("fleet_api_address")
    if address is None or "fleet_api_type" in settings.unclear:
        return
    match settings.get("fleet_api_type"):
        case "vce":
            settings.warnings.append(f"{address.source}: not used, a simulation has no port")
        case "rest":
            name = "rest_fleet_api_address"
            _settle(settings, name, address, settings.given.get(name))
        case _:
            name = "grpc_rere_fleet_api_address"
            _settle(settings, name, address, settings.given.get(name))


def _fold_ssl_ca_certfile(settings: Settings) -> None:
    ca_certificate = settings.given.get("ssl_ca_certfile")
    if ca_certificate is None:
        return
    if "certificates" in settings.given:
        settings.warnings.append(f"{ca_certificate.source}: not used, the certificates name a CA")
        return
    files = [ca_certificate, settings.given.get("ssl_certfile"), settings.given.get("ssl_keyfile")]
    missing = [
        OPTIONS[name].flag
        for name in ("ssl_certfile", "ssl_keyfile")
        if name not in settings.given and name not in settings.unclear
    ]
    if missing:
        settings.fault(
            f"{ca_certificate.source}: needs {' and '.join(missing)} as well",
            "certificates",
            "ssl_certfile",
            "ssl_keyfile",
        )
    elif None in files:
        settings.unclear.add("certificates")
    else:
        settings.given["certificates"] = attrs.evolve(
            ca_certificate, value=tuple(file.value for file in files if file is not None)
        )


def _fold_authentication(settings: Settings) -> None:
    names = ("auth_list_public_keys", "auth_superlink_private_key", "auth_superlink_public_key")
    parts = [settings.given[name] for name in names if name in settings.given]
    if not parts:
        return
    missing = [
        OPTIONS[name].flag
        for name in names
        if name not in settings.given and name not in settings.unclear
    ]
    if missing:
        settings.fault(
            f"{parts[0].source}: needs {' and '.join(missing)} as well",
            "require_client_authentication",
        )
    elif len(parts) < len(names):
        settings.unclear.add("require_client_authentication")
    else:
        whole = attrs.evolve(
            max(parts, key=lambda part: part.rank), value=tuple(part.value for part in parts)
        )
        name = "require_client_authentication"
        _settle(settings, name, whole, settings.given.get(name))


def build(settings: Settings, apis: Apis) -> SuperLinkConfig:
    """Make the config of the values that are sound, and add what else is wrong to the faults."""
    sound = {}
    for field in attrs.fields(SuperLinkConfig):
        setting = settings.given.get(field.name)
        if setting is None:
            continue
        problem = problem_with(field.name, setting.value)
        if problem is None:
            sound[field.name] = setting.value
        else:
            settings.fault(f"{setting.source}: {problem}", field.name)
    config = SuperLinkConfig(**sound)
    for fault in config.faults(apis):
        if settings.unclear.isdisjoint(fault.fields):
            sources = [
                settings.given[name].source for name in fault.fields if name in settings.given
            ]
            settings.faults.append(": ".join([*sources[:1], fault.problem]))
    settings.warnings += config.warnings(apis)
    return config
