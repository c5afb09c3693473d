"""Apps of simulated nodes, on whichever release of Flower they are imported with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from flwr.client import Client, ClientApp, NumPyClient
from flwr.common import (
    ConfigsRecord,
    Context,
    Message,
    MetricsRecord,
    RecordSet,
)
from flwr.common.message import Error

Weights = list[npt.NDArray[Any]]
Config = dict[str, bool | bytes | float | int | str]


class Stepper(NumPyClient):
    """Adds its partition id, and one, to every weight."""

    def __init__(self, partition_id: int) -> None:
        self._step = partition_id + 1

    def fit(self, parameters: Weights, config: Config) -> tuple[Weights, int, Config]:
        return [weights + self._step for weights in parameters], 8, {"lr": config["lr"]}

    def evaluate(self, parameters: Weights, config: Config) -> tuple[float, int, Config]:
        raise ZeroDivisionError("division by zero")


def client_fn(whom: Any) -> Client:
    """Until 1.9 it is called with the partition id as a text."""
    id_ = whom if isinstance(whom, str) else whom.node_config["partition-id"]
    return Stepper(int(id_)).to_client()


def counting(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    answer = call_next(message, context)
    seen = context.state.metrics_records
    times = seen["seen"]["times"] if "seen" in seen else 0
    seen["seen"] = MetricsRecord({"times": times + 1})
    return answer


legacy = ClientApp(client_fn=client_fn, mods=[counting])

modern = ClientApp(mods=[counting])


@modern.train()
def train(message: Message, context: Context) -> Message:
    """Send everything back."""
    return message.create_reply(message.content)


@modern.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return message.create_error_reply(Error(12, "no data"))


@modern.query()
def query(message: Message, context: Context) -> Message:
    """Tell all there is to know."""
    metadata = message.metadata
    node = getattr(context, "node_config", {})
    told: dict[str, Any] = {
        "run_id": metadata.run_id,
        "message_id": metadata.message_id,
        "src_node_id": metadata.src_node_id,
        "dst_node_id": metadata.dst_node_id,
        "reply_to_message": metadata.reply_to_message,
        "group_id": metadata.group_id,
        "ttl": metadata.ttl,
        "created_at": metadata.created_at,
        "partition_id": getattr(metadata, "partition_id", node.get("partition-id")),
    }
    if node:
        told["num_partitions"] = node["num-partitions"]
        told["node_id"] = context.node_id
        told["lr"] = context.run_config["lr"]
    return message.create_reply(RecordSet(configs_records={"told": ConfigsRecord(told)}))
