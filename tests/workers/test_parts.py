from __future__ import annotations

from typing import Any

import pytest

from superlink_trio.config import Apis, SuperLinkConfig
from superlink_trio.workers.parts import part_of, starts_runs


def config(**changes: Any) -> SuperLinkConfig:
    return SuperLinkConfig(**{"insecure": True, "database": "state.db", "workers": 3, **changes})


@pytest.mark.parametrize("apis", [Apis.DRIVER, Apis.FLEET, Apis.BOTH])
def test_all_serve_nodes_and_drivers_of_older_releases(apis: Apis) -> None:
    for number in (1, 2, 3):
        served, part = part_of(number, apis, config(fleet_api_type="rest"))
        assert served is apis
        assert part.workers == 1
        assert part.faults(served) == []


@pytest.mark.parametrize("carrier", ["grpc-rere", "rest"])
def test_over_a_file_the_first_alone_serves_todays_flower(carrier: str) -> None:
    everything = config(
        fleet_api_type=carrier,
        port=8000,
        control_address="127.0.0.1:8001",
        control_grpc_address="127.0.0.1:8002",
        isolation="process",
    )
    served, first = part_of(1, Apis.BOTH, everything)
    assert served is Apis.BOTH
    assert first.port == 8000
    served, other = part_of(2, Apis.BOTH, everything)
    # Its nodes come over gRPC too, to the port of the Fleet API.
    assert served is (Apis.BOTH if carrier == "rest" else Apis.DRIVER)
    assert other.flower_place is other.control_place is other.control_grpc_place is None
    assert other.faults(served) == []


@pytest.mark.parametrize("isolation", ["subprocess", "process"])
def test_over_postgresql_all_serve_everything_and_the_first_starts_runs(isolation: str) -> None:
    everything = config(
        database="postgresql://db.example/superlink", port=8000, isolation=isolation
    )
    for number in (1, 2, 3):
        served, part = part_of(number, Apis.BOTH, everything)
        assert served is Apis.BOTH
        assert (part.port, part.isolation, part.workers) == (8000, isolation, 1)
    assert [starts_runs(number) for number in (1, 2, 3)] == [True, False, False]
