"""A start_server script: ROUNDS rounds of federated averaging over CLIENTS clients.

Runs as `round_loop.py ADDRESS [CA CERTIFICATE KEY]`. Prints a JSON line a phase (how many clients
failed in it), and in the end, or when it is interrupted, one with the History.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from superlink_trio import FedAvg, Interrupted, ServerConfig, start_server

CLIENTS = int(os.environ["CLIENTS"])
ROUNDS = int(os.environ["ROUNDS"])
ROUND_TIMEOUT = os.environ.get("ROUND_TIMEOUT")


class Averager(FedAvg):
    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        print(json.dumps({"fit": server_round, "failures": len(failures)}), flush=True)
        return super().aggregate_fit(server_round, results, failures)


if __name__ == "__main__":
    address, *files = sys.argv[1:]
    try:
        history = start_server(
            server_address=address,
            config=ServerConfig(ROUNDS, float(ROUND_TIMEOUT) if ROUND_TIMEOUT else None),
            strategy=Averager(
                min_fit_clients=1, min_evaluate_clients=1, min_available_clients=CLIENTS
            ),
            certificates=tuple(Path(file).read_bytes() for file in files) or None,  # type: ignore[arg-type]  # three
        )
    except Interrupted as interrupted:
        history = interrupted.history
    print(json.dumps({"history": history.to_dict()}), flush=True)
