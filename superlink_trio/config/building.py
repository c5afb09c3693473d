"""Every option there is, those that stand for others too, and the config that they make."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs

from superlink_trio.config.kinds import ADDRESS, COUNT, DIRECTORY, FILE, FLAG, choice
from superlink_trio.config.options import Apis, Option, Section, options_of, problem_with
from superlink_trio.config.reading import Setting, Settings, Table
from superlink_trio.config.superlink import SuperLinkConfig

_general = partial(Option, section=Section.GENERAL, apis=Apis.BOTH)
_switch = partial(
    Option, section=Section.FLEET, apis=Apis.FLEET, kind=FLAG, short_for="fleet_api_type"
)
_flower = partial(Option, section=Section.FLOWER, apis=Apis.BOTH)

PROGRAM = (
    _general(
        "config",
        kind=FILE,
        help="options from a TOML file, without the dashes",
        common=True,
    ),
    _general(
        "log_level",
        kind=choice("debug", "info", "warning", "error"),
        help="the least that is worth a log line",
        reloads=True,
        default="info",
    ),
    _general(
        "log_format",
        kind=choice("text", "json"),
        help="lines for people, or a JSON object a line",
        default="text",
    ),
)
"""Options of the program itself, which no config has."""

_AUTHENTICATION = {
    "auth_list_public_keys": "CLIENT_KEYS",
    "auth_superlink_private_key": "SERVER_PRIVATE_KEY",
    "auth_superlink_public_key": "SERVER_PUBLIC_KEY",
}
_WORKERS = ("fleet_api_num_workers", "rest_fleet_api_workers")
_SWITCHES = (
    _switch("grpc_rere", help="serve nodes over gRPC (this is the default)"),
    _switch("rest", help="serve nodes over REST", common=True),
    _switch("vce", help="simulate the nodes", common=True),
)
_FLOWER_NAMES = (
    _flower(
        "fleet_api_address",
        apis=Apis.FLEET,
        kind=ADDRESS,
        help="the address of the chosen Fleet API",
    ),
    *(
        _flower(name, apis=Apis.FLEET, kind=COUNT, help="the same as --workers")
        for name in _WORKERS
    ),
    _flower(
        "ssl_ca_certfile",
        kind=FILE,
        help="together with --ssl-certfile and --ssl-keyfile: the same as --certificates",
    ),
    _flower(
        "control_api_address",
        kind=ADDRESS,
        help="the same as --control-grpc-address",
    ),
    _flower("storage_dir", kind=DIRECTORY, help="not used: fabs are kept in the database"),
    *(
        _flower(name, kind=FILE, help=f"{part} of --require-client-authentication")
        for name, part in _AUTHENTICATION.items()
    ),
)


def table(config: type[SuperLinkConfig]) -> Table:
    """Make the table of all options that there are for a config, in their order."""
    sections = list(Section)
    options = sorted(
        (*PROGRAM, *_SWITCHES, *options_of(config), *_FLOWER_NAMES),
        key=lambda option: sections.index(option.section),
    )
    return Table(config, {option.name: option for option in options})


OPTIONS = table(SuperLinkConfig)


def build(settings: Settings, apis: Apis) -> SuperLinkConfig:
    """Make the config of the values that are sound, and add what else is wrong to the faults."""
    _fold(settings)
    sound = {}
    for field in attrs.fields(settings.table.config):
        if (setting := settings.given.get(field.name)) is None:
            continue
        if problem := problem_with(field, setting.value):
            settings.fault(f"{setting.source}: {problem}", field.name)
        else:
            sound[field.name] = setting.value
    config = settings.table.config(**sound)
    for fault in config.faults(apis):
        settings.note(fault)
    settings.warnings += config.warnings(apis)
    return config


def _fold(settings: Settings) -> None:
    """Turn the options that stand for others into those, so that only a config's fields are left.

    Where both are given, the higher rank counts, and at the same rank they have to agree.
    """
    given, warnings = settings.given, settings.warnings
    if (address := given.get("fleet_api_address")) and "fleet_api_type" not in settings.unclear:
        match settings.get("fleet_api_type"):
            case "vce":
                warnings.append(f"{address.source}: not used, a simulation has no port")
            case "rest":
                settings.take("rest_fleet_api_address", address)
            case _:
                settings.take("grpc_rere_fleet_api_address", address)
    if address := given.get("control_api_address"):
        settings.take("control_grpc_address", address)
    if (ca := given.get("ssl_ca_certfile")) and "certificates" in given:
        warnings.append(f"{ca.source}: not used, the certificates name a CA")
    elif ca:
        names = ("ssl_ca_certfile", "ssl_certfile", "ssl_keyfile")
        _join(settings, names, "certificates", ("ssl_certfile", "ssl_keyfile"))
    _join(settings, tuple(_AUTHENTICATION), "require_client_authentication")
    for name in _WORKERS:
        if workers := given.get(name):
            settings.take("workers", workers)
    if storage := given.get("storage_dir"):
        warnings.append(f"{storage.source}: not used, fabs are kept in the database")


def _join(
    settings: Settings, names: Sequence[str], whole: str, unclear: Sequence[str] = ()
) -> None:
    """Make one option of several that come together, if there is any of them.

    Where some are missing, `unclear` are so as well.
    """
    parts = [settings.given[name] for name in names if name in settings.given]
    missing = [name for name in names if name not in settings.given]
    if parts and not missing:
        highest = max(parts, key=lambda part: part.rank)
        value = tuple(part.value for part in parts)
        settings.take(whole, Setting(value, highest.source, highest.rank))
    elif parts and (absent := [name for name in missing if name not in settings.unclear]):
        flags = " and ".join(settings.table.options[name].flag for name in absent)
        settings.fault(f"{parts[0].source}: needs {flags} as well", whole, *unclear)
    elif parts:
        settings.unclear.add(whole)
