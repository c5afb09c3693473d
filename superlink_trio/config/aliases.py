"""Options that stand for others, and what each is folded into."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs

from superlink_trio.config.kinds import ADDRESS, COUNT, DIRECTORY, FILE, FLAG
from superlink_trio.config.options import Apis, Option, Section
from superlink_trio.config.settings import Setting, Settings

SWITCHES = tuple(
    Option(name, Section.FLEET, Apis.FLEET, FLAG, help)
    for name, help in (
        ("grpc_rere", "serve nodes over gRPC (this is the default)"),
        ("rest", "serve nodes over REST"),
        ("vce", "simulate the nodes"),
    )
)

_fleet = partial(Option, section=Section.FLOWER, apis=Apis.FLEET)
_both = partial(Option, section=Section.FLOWER, apis=Apis.BOTH)
_ALL_THREE = "together with --ssl-certfile and --ssl-keyfile: the same as --certificates"
FLOWER_NAMES = (
    _fleet("fleet_api_address", kind=ADDRESS, help="the address of the chosen Fleet API"),
    _fleet(
        "fleet_api_num_workers", kind=COUNT, help="another number than 1 is not used", default="1"
    ),
    _both("ssl_ca_certfile", kind=FILE, help=_ALL_THREE),
    _both("storage_dir", kind=DIRECTORY, help="not used: fabs are kept in the database"),
    *(
        _both(name, kind=FILE, help=f"{part} of --require-client-authentication")
        for name, part in (
            ("auth_list_public_keys", "CLIENT_KEYS"),
            ("auth_superlink_private_key", "SERVER_PRIVATE_KEY"),
            ("auth_superlink_public_key", "SERVER_PUBLIC_KEY"),
        )
    ),
)


def fold(settings: Settings) -> None:
    """Turn the options that stand for others into those, so that only a config's fields are left.

    Where both are given, the higher rank counts, and at the same rank they have to agree.
    """
    _fold_switches(settings)
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


def _fold_switches(settings: Settings) -> None:
    chosen = [
        attrs.evolve(setting, value=switch.key)
        for switch in SWITCHES
        if (setting := settings.given.get(switch.name)) is not None and setting.value
    ]
    settings.settle("fleet_api_type", *chosen, settings.given.get("fleet_api_type"))


def _fold_fleet_api_address(settings: Settings) -> None:
    address = settings.given.get("fleet_api_address")
    if address is None or "fleet_api_type" in settings.unclear:
        return
    fleet_api_type = settings.get("fleet_api_type")
    if fleet_api_type == "vce":
        settings.warnings.append(f"{address.source}: not used, a simulation has no port")
        return
    rest = fleet_api_type == "rest"
    name = "rest_fleet_api_address" if rest else "grpc_rere_fleet_api_address"
    settings.settle(name, address, settings.given.get(name))


def _fold_ssl_ca_certfile(settings: Settings) -> None:
    ca_certificate = settings.given.get("ssl_ca_certfile")
    if ca_certificate is None:
        return
    if "certificates" in settings.given:
        settings.warnings.append(f"{ca_certificate.source}: not used, the certificates name a CA")
        return
    names = ("ssl_ca_certfile", "ssl_certfile", "ssl_keyfile")
    parts = _complete(settings, names, ("certificates", "ssl_certfile", "ssl_keyfile"))
    if parts:
        value = tuple(part.value for part in parts)
        settings.given["certificates"] = attrs.evolve(ca_certificate, value=value)


def _fold_authentication(settings: Settings) -> None:
    names = ("auth_list_public_keys", "auth_superlink_private_key", "auth_superlink_public_key")
    name = "require_client_authentication"
    parts = _complete(settings, names, (name,))
    if parts:
        value = tuple(part.value for part in parts)
        whole = attrs.evolve(max(parts, key=lambda part: part.rank), value=value)
        settings.settle(name, whole, settings.given.get(name))


def _complete(
    settings: Settings, names: Sequence[str], into: Sequence[str]
) -> Sequence[Setting] | None:
    """Give options that come together; None if there is none of them, or not all.

    `into` is unclear where some are missing, the first of it where some have a fault.
    """
    parts = [settings.given[name] for name in names if name in settings.given]
    if len(parts) in (0, len(names)):
        return parts or None
    missing = [
        settings.table.options[name].flag
        for name in names
        if name not in settings.given and name not in settings.unclear
    ]
    if missing:
        settings.fault(f"{parts[0].source}: needs {' and '.join(missing)} as well", *into)
    else:
        settings.unclear.add(into[0])
    return None
