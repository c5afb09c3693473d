"""Which worker serves what."""

from __future__ import annotations

from typing import Any

import attrs

from superlink_trio.config import Apis, SuperLinkConfig
from superlink_trio.config.control import ControlOptions
from superlink_trio.state import is_postgres


def part_of(number: int, apis: Apis, config: SuperLinkConfig) -> tuple[Apis, SuperLinkConfig]:
    """Give what a worker serves, and with which config: everything, over PostgreSQL.

    Over a file nodes and runs of Flower 1.23 and later are served by one process, the first. The
    others leave it also the Fleet API over gRPC, because such nodes come there as well.
    """
    config = attrs.evolve(config, workers=1)
    apart = config.port is not None and apis is Apis.BOTH and not is_postgres(config.database)
    if number == 1 or not apart:
        return apis, config
    absent: dict[str, Any] = dict.fromkeys(each.name for each in attrs.fields(ControlOptions))
    absent |= {"port": None, "superexec_auth_secret_file": None, "isolation": "subprocess"}
    alone = attrs.evolve(config, **absent)
    return (Apis.BOTH if config.fleet_api_type == "rest" else Apis.DRIVER), alone


def starts_runs(number: int) -> bool:
    """Say whether a worker starts the processes of runs: one does, so that their limit is one."""
    return number == 1
