"""Which worker serves what."""

from __future__ import annotations

from typing import Any

import attrs

from superlink_trio.config import Apis, SuperLinkConfig
from superlink_trio.config.control import ControlOptions


def part_of(number: int, apis: Apis, config: SuperLinkConfig) -> tuple[Apis, SuperLinkConfig]:
    """Give what a worker serves, and with which config.

    Nodes and runs of Flower 1.23 and later are served by one process over a store, the first. The
    others leave it also the Fleet API over gRPC, because such nodes come there as well.
    """
    config = attrs.evolve(config, workers=1)
    if number == 1 or config.port is None or apis is not Apis.BOTH:
        return apis, config
    absent: dict[str, Any] = dict.fromkeys(each.name for each in attrs.fields(ControlOptions))
    absent |= {"port": None, "superexec_auth_secret_file": None, "isolation": "subprocess"}
    alone = attrs.evolve(config, **absent)
    return (Apis.BOTH if config.fleet_api_type == "rest" else Apis.DRIVER), alone
