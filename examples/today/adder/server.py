"""What the run does: rounds of FedAvg from nothing; it prints the sum after each."""

import numpy as np
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    result = FedAvg().start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(3)]),
        num_rounds=int(context.run_config["rounds"]),
    )
    sums = [metrics["sum"] for metrics in result.evaluate_metrics_clientapp.values()]
    print(f"The sums after each round: {sums}", flush=True)
