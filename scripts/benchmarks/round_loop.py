"""A start_server script, on this package or on Flower: `round_loop.py ours|reference ADDRESS …`.

Averages over CLIENTS clients for ROUNDS rounds, beginning with a model of MEGABYTES of zeros.
Reports its peak memory in megabytes, its processor time in seconds, how long the rounds took from
the moment at which all clients were there, and the last loss.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

# The same names on both sides: types are checked against ours.
if TYPE_CHECKING or sys.argv[1] == "ours":
    from superlink_trio import FedAvg, ServerConfig, start_server
    from superlink_trio.federation import ndarrays_to_parameters
else:
    from flwr.common import ndarrays_to_parameters
    from flwr.server import ServerConfig, start_server
    from flwr.server.strategy import FedAvg


class Timed(FedAvg):
    begun: float | None = None
    ended = 0.0

    def configure_fit(self, *arguments: Any, **named: Any) -> Any:
        chosen = super().configure_fit(*arguments, **named)
        if self.begun is None:
            self.begun = time.monotonic()
        return chosen

    def aggregate_evaluate(self, *arguments: Any, **named: Any) -> Any:
        aggregated = super().aggregate_evaluate(*arguments, **named)
        self.ended = time.monotonic()
        return aggregated


def main(address: str, clients: int, rounds: int, megabytes: int) -> None:
    model = [np.zeros(megabytes * 10**6 // 4, np.float32)]
    strategy = Timed(
        min_fit_clients=clients,
        min_evaluate_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters(model),
    )
    before = _used()
    history = start_server(
        server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy
    )
    assert strategy.begun is not None
    figures = {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
        "cpu": _used() - before,
        "seconds": strategy.ended - strategy.begun,
        "loss": history.losses_distributed[-1][1],
    }
    print(json.dumps(figures), flush=True)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(sys.argv[2], *map(int, sys.argv[3:]))
