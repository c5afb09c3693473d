"""`--backend-config` as the Ray backend reads it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

DEFAULT_RESOURCES: Mapping[str, float] = {"num_cpus": 1, "num_gpus": 0}

# What of Ray's own settings may be given. Whatever else `ray.init` knows is decided here, or does
# not concern a simulation.
_RAY = ("address", "num_cpus", "num_gpus", "resources", "object_store_memory")

# Flower 1.10 and 1.11 call Ray's settings `init_args` and put `tensorflow` into `actor`.
_KNOWN = ("client_resources", "tensorflow", "mute_logging", "silent", "ray", "init_args", "actor")

# The grain in which Ray counts resources.
_GRAINS = 10_000


@attrs.frozen(kw_only=True)
class Settings:
    """What was asked for. All of it is sound by itself; whether a cluster has it, Ray knows."""

    resources: Mapping[str, float]
    """What one worker takes, by Ray's names (`CPU`, `GPU`, `memory`, or one of the user's own)."""
    address: str | None = None
    """`host:port` of an existing cluster, or `auto`; None for a Ray of our own."""
    init: Mapping[str, Any] = attrs.field(factory=dict)
    """What `ray.init` is given besides."""
    tensorflow: bool = False
    """Let TensorFlow take a GPU's memory as it grows, so that several workers can share one."""
    workers_log: bool = True
    ray_logs: bool = True


def read_settings(config: Mapping[str, object]) -> Settings:
    """Read what `--backend-config` says. Raises ValueError naming what cannot be used."""
    _refuse_unknown("--backend-config", config, _KNOWN)
    given = {
        **_mapping("init_args", config.get("init_args")),
        **_mapping("ray", config.get("ray")),
    }
    _refuse_unknown("ray", given, _RAY)
    address = _address(given.pop("address", None))
    if address is not None and given:
        raise ValueError(
            f"ray: {', '.join(sorted(given))} cannot be set for an existing cluster ({address})"
        )
    actor = _mapping("actor", config.get("actor"))
    _refuse_unknown("actor", actor, ("tensorflow",))
    muted = bool(config.get("mute_logging"))
    return Settings(
        resources=_resources(config.get("client_resources")),
        address=address,
        init={name: _init(name, value) for name, value in given.items()},
        tensorflow=bool(config.get("tensorflow") or actor.get("tensorflow")),
        workers_log=not muted,
        ray_logs=not muted and not config.get("silent"),
    )


def fitting(resources: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many workers that take `resources` fit on nodes that have these, each on one node."""
    return sum(
        min(
            _grains(has.get(name, 0)) // _grains(takes)
            for name, takes in resources.items()
            if takes
        )
        for has in nodes
    )


def _grains(amount: float) -> int:
    return round(amount * _GRAINS)


def _resources(given: object) -> Mapping[str, float]:
    named = {**DEFAULT_RESOURCES, **_mapping("client_resources", given)}
    custom = _mapping("client_resources.resources", named.pop("resources", None))
    ray_names = {"num_cpus": "CPU", "num_gpus": "GPU"}
    resources = {
        ray_names.get(name, name): _amount(f"client_resources.{name}", value)
        for name, value in {**named, **custom}.items()
    }
    if not any(map(_grains, resources.values())):
        raise ValueError(
            "client_resources: a worker has to take some of something, or there would be any number"
        )
    return resources


def _amount(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} has to be a number, not {value!r}")  # noqa: TRY004 - a setting
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} has to be 0 or more, not {value!r}")
    return value


def _init(name: str, value: object) -> object:
    if name == "resources":
        given = _mapping("ray.resources", value)
        return {of: _amount(f"ray.resources.{of}", amount) for of, amount in given.items()}
    amount = _amount(f"ray.{name}", value)
    if not isinstance(amount, int):
        raise ValueError(f"ray.{name} has to be a whole number, not {value!r}")  # noqa: TRY004
    return amount


def _address(given: object) -> str | None:
    if given is None or given == "local":
        return None
    if not isinstance(given, str):
        raise ValueError(f"ray.address has to be a text, not {given!r}")  # noqa: TRY004 - a setting
    host, _, port = given.rpartition(":")
    if given == "auto" or (host and port.isdecimal() and "/" not in host):
        return given
    raise ValueError(
        f"ray.address is {given!r}; it has to be host:port of a cluster's head node, or auto, and "
        "this machine has to be one of the cluster's (`ray start --address=host:port`)"
    )


def _mapping(name: str, given: object) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{name} has to be an object, not {given!r}")  # noqa: TRY004 - a setting
    return dict(given)


def _refuse_unknown(place: str, given: Mapping[str, object], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{place}: {name!r} is not known{hint} (known: {', '.join(sorted(known))})"
            )
