"""`--backend-config` as the process backend reads it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

import attrs

from superlink_trio.simulation.worker import WorkerSettings


@attrs.frozen(kw_only=True)
class ProcessSettings:
    """How many workers there are, and how they behave."""

    workers: int
    worker: WorkerSettings = attrs.field(factory=WorkerSettings)

    @classmethod
    def read(cls, config: Mapping[str, object]) -> ProcessSettings:
        """Read the settings of `--backend-config`.

        Honoured are `client_resources` (`num_cpus`, the share of this machine's CPUs that a
        worker takes), `tensorflow`, `mute_logging` and `silent`.

        Raises ValueError, naming everything that cannot be used.
        """
        faults = [
            f"{key} is nothing the process backend knows"
            + (": it is Ray's, use --backend ray" if key in ("init_args", "actor") else "")
            for key in config
            if key not in ("client_resources", "tensorflow", "mute_logging", "silent")
        ]
        workers, more = _count_workers(config.get("client_resources", {}))
        if faults := [*faults, *more]:
            raise ValueError("; ".join(faults))
        return cls(workers=workers, worker=WorkerSettings.read(config))


def most_at_once(config: Mapping[str, object]) -> int:
    """Give how many tasks run at the same time. Raises ValueError for settings of no use."""
    return ProcessSettings.read(config).workers


def _count_workers(resources: object) -> tuple[int, list[str]]:
    """Give how many workers fit on this machine, and what is wrong with what they need."""
    if not isinstance(resources, Mapping):
        return 1, ["client_resources must be an object"]
    faults = [
        f"client_resources.{key} is nothing the process backend knows"
        for key in resources
        if key not in ("num_cpus", "num_gpus")
    ]
    cpus, gpus = resources.get("num_cpus", 1), resources.get("num_gpus", 0)
    if not _is_number(gpus) or gpus < 0:
        faults.append("client_resources.num_gpus must be a number, not below 0")
    elif gpus > 0:
        faults.append(
            f"client_resources.num_gpus is {gpus}, but the process backend does not share out "
            "GPUs: use --backend ray"
        )
    if not _is_number(cpus) or cpus <= 0:
        return 1, [*faults, "client_resources.num_cpus must be a number above 0"]
    return max(1, int(usable_cpus() / cpus)), faults


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def usable_cpus() -> int:
    """Give how many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
