"""Rounds of FedAvg from what one of the nodes gives; each round's sums are printed as JSON."""

import json
from typing import Any

from flwr.common import Context
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg


def sums(answers: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    told = [metrics["sum"] for _, metrics in answers]
    print(json.dumps({"sums": told}), flush=True)
    return {"sum": sum(told) / len(told)}


def server_fn(context: Context) -> ServerAppComponents:
    strategy = FedAvg(
        min_fit_clients=2,
        min_evaluate_clients=2,
        min_available_clients=2,
        on_fit_config_fn=lambda server_round: {"step": server_round},
        evaluate_metrics_aggregation_fn=sums,
    )
    config = ServerConfig(num_rounds=int(context.run_config["rounds"]))
    return ServerAppComponents(strategy=strategy, config=config)


app = ServerApp(server_fn=server_fn)
