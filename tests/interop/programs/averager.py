"""A server-app of 1.8 or 1.9: federated averaging over CLIENTS clients for ROUNDS rounds.

Prints a JSON line a round: its number, the mean loss, and how many clients failed in it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from flwr.server import ServerApp, ServerConfig
from flwr.server.strategy import FedAvg

CLIENTS = int(os.environ["CLIENTS"])
ROUNDS = int(os.environ["ROUNDS"])
ROUND_TIMEOUT = os.environ.get("ROUND_TIMEOUT")


class Averager(FedAvg):
    failures = 0

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.failures = len(failures)
        return super().aggregate_fit(server_round, results, failures)

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        loss, metrics = super().aggregate_evaluate(server_round, results, failures)
        failed = self.failures + len(failures)
        # A mean of floats depends on the order of the answers, in its last digits.
        told = None if loss is None else round(loss, 9)
        print(json.dumps({"round": server_round, "loss": told, "failures": failed}), flush=True)
        return loss, metrics


app = ServerApp(
    config=ServerConfig(
        num_rounds=ROUNDS, round_timeout=float(ROUND_TIMEOUT) if ROUND_TIMEOUT else None
    ),
    strategy=Averager(
        min_fit_clients=CLIENTS, min_evaluate_clients=CLIENTS, min_available_clients=CLIENTS
    ),
)
