"""`--backend-config` as the Ray backend reads it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import attrs

from superlink_trio.simulation.worker import WorkerSettings

_DEFAULT_RESOURCES: Mapping[str, float] = {"num_cpus": 1, "num_gpus": 0}

# How Ray calls in its nodes' tables what it calls otherwise in its calls.
_RAY_NAMES = {"num_cpus": "CPU", "num_gpus": "GPU"}

# Flower 1.10 and 1.11 call Ray's settings `init_args` and put `tensorflow` into `actor`.
_KNOWN = ("client_resources", "tensorflow", "mute_logging", "silent", "ray", "init_args", "actor")

# What of Ray's own settings may be given. Whatever else `ray.init` knows is decided here, or does
# not concern a simulation.
_KNOWN_OF_RAY = ("address", "num_cpus", "num_gpus", "resources", "object_store_memory")

# The grain in which Ray counts resources.
_GRAINS = 10_000


@attrs.frozen(kw_only=True)
class Settings:
    """What was asked for. All of it is sound by itself; whether a cluster has it, Ray knows."""

    resources: Mapping[str, float]
    """What one worker takes: `CPU`, `GPU`, `memory` (bytes), and a cluster's own."""
    address: str | None = None
    """`host:port` of an existing cluster, or `auto`; None for a Ray of our own."""
    init: Mapping[str, Any] = attrs.field(factory=dict)
    """What a Ray of our own is given besides, as arguments of `ray.init`."""
    worker: WorkerSettings = attrs.field(factory=WorkerSettings)

    @classmethod
    def read(cls, config: Mapping[str, object]) -> Settings:
        """Read what `--backend-config` says.

        Raises ValueError, naming everything that cannot be used.
        """
        faults = list(_faults(config))
        if faults:
            raise ValueError("; ".join(faults))
        given = _ray(config)
        tensorflow = config.get("tensorflow") or _object(config, "actor").get("tensorflow")
        return cls(
            resources={
                _RAY_NAMES.get(name, name): amount
                for name, amount in _resources(config).items()
                if _grains(amount)
            },
            address=_address(given),
            init={name: value for name, value in given.items() if name != "address"},
            worker=WorkerSettings.read({**config, "tensorflow": tensorflow}),
        )


def most_at_once(config: Mapping[str, object]) -> int | None:
    """Give how many tasks run at the same time at most, as far as settings and this machine say.

    None: only Ray knows. Raises ValueError for settings of no use.
    """
    settings = Settings.read(config)
    takes = settings.resources.get("CPU", 0)
    if settings.address is not None or not takes:
        return None
    cpus = settings.init.get("num_cpus", os.cpu_count() or 1)
    return max(1, fitting({"CPU": takes}, [{"CPU": cpus}]))


def fitting(resources: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """Give how many workers that take `resources` fit on nodes that have these, each on one."""
    return sum(
        min(_grains(has.get(name, 0)) // _grains(takes) for name, takes in resources.items())
        for has in nodes
    )


def _grains(amount: float) -> int:
    return round(amount * _GRAINS)


def _object(config: Mapping[str, object], name: str) -> dict[str, Any]:
    given = config.get(name)
    return dict(given) if isinstance(given, Mapping) else {}


def _ray(config: Mapping[str, object]) -> dict[str, Any]:
    return {**_object(config, "init_args"), **_object(config, "ray")}


def _resources(config: Mapping[str, object]) -> dict[str, Any]:
    named = {**_DEFAULT_RESOURCES, **_object(config, "client_resources")}
    custom = _object(named, "resources")
    named.pop("resources", None)
    return {**named, **custom}


def _address(given: Mapping[str, Any]) -> str | None:
    address: str | None = given.get("address")
    return None if address == "local" else address


def _faults(config: Mapping[str, object]) -> Iterator[str]:
    known = {"client_resources": None, "ray": _KNOWN_OF_RAY, "init_args": _KNOWN_OF_RAY}
    for name in config:
        if name not in _KNOWN:
            yield f"{name} is nothing the Ray backend knows"
    for name, keys in {**known, "actor": ("tensorflow",)}.items():
        if not isinstance(config.get(name, {}), Mapping):
            yield f"{name} must be an object"
        for key in _object(config, name):
            if keys is not None and key not in keys:
                yield f"{name}.{key} is nothing the Ray backend knows"
    yield from _resource_faults(_resources(config))
    yield from _ray_faults(_ray(config))


def _resource_faults(resources: Mapping[str, Any]) -> Iterator[str]:
    faulty = [name for name, amount in resources.items() if not _is_amount(amount)]
    for name in faulty:
        yield f"client_resources.{name} must be a number, not below 0"
    if not faulty and not any(map(_grains, resources.values())):
        yield "client_resources: without taking some of anything, there could be any number"


def _ray_faults(given: Mapping[str, Any]) -> Iterator[str]:
    address = given.get("address")
    if not (address is None or address in ("local", "auto") or _is_host_and_port(address)):
        yield (
            f"ray.address is {address!r}; it must be host:port of a cluster's head node, or auto, "
            "and this machine must be one of the cluster's (ray start --address=host:port)"
        )
    for name in ("num_cpus", "num_gpus", "object_store_memory"):
        if not _is_amount(amount := given.get(name, 0)) or not isinstance(amount, int):
            yield f"ray.{name} must be a whole number, not below 0"
    custom = given.get("resources", {})
    if not isinstance(custom, Mapping) or not all(map(_is_amount, custom.values())):
        yield "ray.resources must be an object of numbers"
    if address not in (None, "local") and len(given) > 1:
        others = ", ".join(sorted(given.keys() - {"address"}))
        yield f"ray: {others} cannot be set for a cluster that exists already"


def _is_host_and_port(address: object) -> bool:
    if not isinstance(address, str):
        return False
    host, _, port = address.rpartition(":")
    # `ray://` is Ray's client, which has no object store on this side.
    return bool(host) and "/" not in host and port.isdecimal() and 0 < int(port) < 65536


def _is_amount(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value < math.inf
