"""The driver: ten rounds of federated averaging."""

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerConfig
from flwr.server.strategy import FedAvg


def mean_accuracy(results: list[tuple[int, dict]]) -> dict:
    total = sum(examples for examples, _ in results)
    return {"accuracy": sum(n * metrics["accuracy"] for n, metrics in results) / total}


strategy = FedAvg(
    min_fit_clients=20,
    min_evaluate_clients=20,
    min_available_clients=20,
    initial_parameters=ndarrays_to_parameters([np.zeros((64, 10)), np.zeros(10)]),
    evaluate_metrics_aggregation_fn=mean_accuracy,
)
app = ServerApp(config=ServerConfig(num_rounds=10), strategy=strategy)
