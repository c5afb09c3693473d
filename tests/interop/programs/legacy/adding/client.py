"""A node gives the first weights, adds the number of the round to them, and tells their sum."""

from typing import Any

import numpy as np
from flwr.client import Client, ClientApp, NumPyClient
from flwr.common import Context


class Adder(NumPyClient):
    def get_parameters(self, config: dict[str, Any]) -> list[Any]:
        return [np.full(3, 10.0)]

    def fit(
        self, parameters: list[Any], config: dict[str, Any]
    ) -> tuple[list[Any], int, dict[str, Any]]:
        return [parameters[0] + config["step"]], 1, {}

    def evaluate(
        self, parameters: list[Any], config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        total = float(parameters[0].sum())
        return total, 1, {"sum": total}


def client_fn(context: Context) -> Client:
    return Adder().to_client()


app = ClientApp(client_fn)
