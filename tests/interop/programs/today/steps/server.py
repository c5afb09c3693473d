"""Rounds of FedAvg from nothing; what the nodes told is printed as JSON."""

import json

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    nodes = int(config["nodes"])
    strategy = FedAvg(min_train_nodes=nodes, min_evaluate_nodes=nodes, min_available_nodes=nodes)
    arrays, size = int(config["arrays"]), int(config["size"])
    # Each of its own content, which travels by itself; their sum is nothing.
    initial = [np.full(size, number - (arrays - 1) / 2) for number in range(arrays)]
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(initial),
        num_rounds=int(config["rounds"]),
    )
    told = result.evaluate_metrics_clientapp.values()
    report = {key: [metrics[key] for metrics in told] for key in ("sum", "asked")}
    print(json.dumps(report), flush=True)
