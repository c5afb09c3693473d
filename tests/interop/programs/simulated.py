"""Client-apps of 1.9 for simulated nodes: each adds 1 to every weight, as `adder` does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flwr.client import Client, ClientApp, NumPyClient
from flwr.common import Context, Message, MetricsRecord

Weights = list[npt.NDArray[np.float64]]
Config = dict[str, bool | bytes | float | int | str]


class Adder(NumPyClient):
    def get_parameters(self, config: Config) -> Weights:
        return [np.zeros(4)]

    def fit(self, parameters: Weights, config: Config) -> tuple[Weights, int, Config]:
        return [weights + 1 for weights in parameters], 8, {}

    def evaluate(self, parameters: Weights, config: Config) -> tuple[float, int, Config]:
        return float(np.mean(parameters[0])), 8, {}


class FailsOnTenths(Adder):
    """Raises at every fit on the nodes whose partition id is a multiple of ten."""

    def __init__(self, partition: int) -> None:
        self._fails = partition % 10 == 0

    def fit(self, parameters: Weights, config: Config) -> tuple[Weights, int, Config]:
        if self._fails:
            raise LookupError("no data here")
        return super().fit(parameters, config)


class Stalls(Adder):
    """Whoever finds the pipe that PIPE names tells its pid through it, once, and works on."""

    def fit(self, parameters: Weights, config: Config) -> tuple[Weights, int, Config]:
        pipe = Path(os.environ["PIPE"])
        try:
            pipe.rename(pipe.with_suffix(".taken"))
        except FileNotFoundError:
            return super().fit(parameters, config)
        pipe.with_suffix(".taken").write_text(str(os.getpid()))
        time.sleep(60)
        raise TimeoutError("nobody interrupted it")


class Recalls(Adder):
    """Its loss is how many times its node has trained before."""

    def evaluate(self, parameters: Weights, config: Config) -> tuple[float, int, Config]:
        return float(config["trained"]), 8, {}


def remembering(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Count in the state how often the node trains, and tell the client when it evaluates."""
    state, configs = context.state.metrics_records, message.content.configs_records
    trained = state["trained"]["times"] if "trained" in state else 0
    assert isinstance(trained, int)
    if "fitins.config" in configs:
        state["trained"] = MetricsRecord({"times": trained + 1})
    if "evaluateins.config" in configs:
        configs["evaluateins.config"]["trained"] = trained
    return call_next(message, context)


def client_fn(kind: type[Adder]) -> Callable[[str], Client]:
    return lambda cid: kind().to_client()


app = ClientApp(client_fn=client_fn(Adder))
failing = ClientApp(client_fn=lambda cid: FailsOnTenths(int(cid)).to_client())
stalling = ClientApp(client_fn=client_fn(Stalls))
recalling = ClientApp(client_fn=client_fn(Recalls), mods=[remembering])
