"""A client whose work can be foretold: fit adds STEP to every weight, the loss is their mean.

Runs as `adder.py ADDRESS TRANSPORT` or, as `adder:app`, under 1.8's and 1.9's own launcher. The
first fit takes STALL seconds; with `inf`, until a line comes on standard input. With CA_CERT, a
file, it speaks TLS.
"""

from __future__ import annotations

import math
import os
import sys
import time

import numpy as np
import numpy.typing as npt
from flwr.client import ClientApp, NumPyClient, start_client

Weights = list[npt.NDArray[np.float64]]
Config = dict[str, bool | bytes | float | int | str]

STEP = float(os.environ.get("STEP", "1"))
STALL = float(os.environ.get("STALL", "0"))


class Adder(NumPyClient):
    def __init__(self) -> None:
        self._stall = STALL

    def get_parameters(self, config: Config) -> Weights:
        return [np.zeros((2, 3)), np.zeros(4)]

    def get_properties(self, config: Config) -> Config:
        return {"answer": config["question"]}

    def fit(self, parameters: Weights, config: Config) -> tuple[Weights, int, Config]:
        if self._stall:
            print("stalling", flush=True)
            if math.isinf(self._stall):
                sys.stdin.readline()
            else:
                time.sleep(self._stall)
            self._stall = 0
        return [weights + STEP for weights in parameters], 8, {}

    def evaluate(self, parameters: Weights, config: Config) -> tuple[float, int, Config]:
        return float(np.mean(np.concatenate([w.ravel() for w in parameters]))), 8, {}


adder = Adder().to_client()
app = ClientApp(client_fn=lambda _: adder)

if __name__ == "__main__":
    address, transport = sys.argv[1:]
    print("starting", flush=True)
    start_client(
        server_address=address,
        client=adder,
        transport=transport,
        root_certificates=os.environ.get("CA_CERT") or None,
    )
