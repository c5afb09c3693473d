"""Flower's strategies under Flower's own server and under ours: the models must be the same.

Runs where both packages are. The clients are the same for both, and train by a fixed rule. Prints
a JSON line a strategy, with the largest difference between the two final models.
"""

from __future__ import annotations

import json
import logging
import queue
import random
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import flwr
import flwr.server.strategy as flower
import grpc
import numpy as np

import superlink_trio
from superlink_trio.federation import ndarrays_to_parameters, parameters_to_ndarrays
from superlink_trio.federation.types import Parameters
from superlink_trio.wire import rounds_pb2 as pb

CLIENTS, ROUNDS = 5, 3
SHAPES: Sequence[tuple[int, ...]] = ((7, 5), (3,), (2, 2, 2))

logging.getLogger("flwr").setLevel(logging.ERROR)


def start() -> Any:
    arrays = [np.random.default_rng(1).normal(size=shape) for shape in SHAPES]
    return flwr.common.ndarrays_to_parameters(arrays)


def options(evaluate: Callable[..., Any]) -> dict[str, Any]:
    return {
        "evaluate_fn": evaluate,
        "initial_parameters": start(),
        "min_fit_clients": CLIENTS,
        "min_evaluate_clients": CLIENTS,
        "min_available_clients": CLIENTS,
    }


STRATEGIES: dict[str, Callable[[Callable[..., Any]], Any]] = {
    "FedAvg": lambda evaluate: flower.FedAvg(**options(evaluate)),
    "FedAvg, not in place": lambda evaluate: flower.FedAvg(**options(evaluate), inplace=False),
    "FedAdam": lambda evaluate: flower.FedAdam(**options(evaluate), eta=0.5, tau=1e-3),
    "FedMedian": lambda evaluate: flower.FedMedian(**options(evaluate)),
    "Krum": lambda evaluate: flower.Krum(**options(evaluate), num_malicious_clients=1),
    "FedProx": lambda evaluate: flower.FedProx(**options(evaluate), proximal_mu=0.5),
    "DPFedAvgFixed": lambda evaluate: flower.DPFedAvgFixed(
        flower.FedAvg(**options(evaluate)), CLIENTS, clip_norm=1.0, noise_multiplier=0.5
    ),
}


def train(number: int, message: pb.ServerMessage) -> pb.ClientMessage:
    """Answer as client `number` does, whoever asks."""
    if message.HasField("evaluate_ins"):
        return pb.ClientMessage(evaluate_res=pb.EvaluateRes(loss=number, num_examples=number + 1))
    received = pb.Parameters.FromString(message.fit_ins.parameters)
    pull = message.fit_ins.config["proximal_mu"].double_value
    arrays = [
        array + (0.1 + 0.2 * number) * np.sin(3 * array + number) - pull * array
        for array in parameters_to_ndarrays(Parameters(list(received.tensors)))
    ]
    trained = ndarrays_to_parameters(arrays)
    parameters = pb.Parameters(tensors=trained.tensors, tensor_type=trained.tensor_type)
    return pb.ClientMessage(
        fit_res=pb.FitRes(parameters=parameters.SerializeToString(), num_examples=number + 1)
    )


def client(number: int, address: str) -> None:
    answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        join: Any = channel.stream_stream("/flwr.proto.FlowerService/Join", None, None)
        for raw in join(iter(answers.get, None), wait_for_ready=True):
            message = pb.ServerMessage.FromString(raw)
            if message.HasField("reconnect_ins"):
                break
            answers.put(train(number, message).SerializeToString())
        answers.put(None)


def final_model(
    start_server: Callable[..., Any],
    name: str,
    server: Callable[[Any], Any] | None = None,
    **more: Any,
) -> tuple[Any, Any]:
    """Run a strategy under a server; gives the last model and the losses."""
    models: list[Any] = []

    def evaluate(server_round: int, arrays: Any, config: Any) -> Any:
        models.append([array.copy() for array in arrays])
        return float(server_round), {}

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    random.seed(7)
    np.random.seed(7)
    threads = [threading.Thread(target=client, args=(n, address)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    strategy = STRATEGIES[name](evaluate)
    who = {"server": server(strategy)} if server else {"strategy": strategy, **more}
    history = start_server(
        server_address=address, config=flwr.server.ServerConfig(num_rounds=ROUNDS), **who
    )
    for thread in threads:
        thread.join()
    assert len(models) == ROUNDS + 1
    return models[-1], (history.losses_distributed, history.losses_centralized)


def their_server(strategy: Any) -> Any:
    manager = flwr.server.SimpleClientManager()
    return flwr.server.Server(client_manager=manager, strategy=strategy)


def main(names: Sequence[str]) -> None:
    for name in names:
        theirs, their_losses = final_model(flwr.server.start_server, name)
        ours, our_losses = final_model(superlink_trio.start_server, name)
        # Flower's client manager, too, in place of ours.
        manager = flwr.server.SimpleClientManager()
        mixed, _ = final_model(superlink_trio.start_server, name, client_manager=manager)
        lent, _ = final_model(superlink_trio.start_server, name, their_server)
        difference = max(
            float(np.abs(a - b).max())
            for other in (ours, mixed, lent)
            for a, b in zip(theirs, other, strict=True)
        )
        moved = max(
            float(np.abs(a - b).max())
            for a, b in zip(theirs, parameters_to_ndarrays(start()), strict=True)
        )
        print(json.dumps({"strategy": name, "difference": difference, "moved": moved}), flush=True)
        assert our_losses == their_losses


if __name__ == "__main__":
    main(sys.argv[1:])
