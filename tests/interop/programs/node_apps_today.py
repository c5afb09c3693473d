"""A ClientApp of today's Flower that tells what it learns; see test_simulated_apps_today."""

from __future__ import annotations

import json

from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def tell(message: Message, context: Context) -> Message:
    """Tell everything that it knows of its message and its node."""
    meta = message.metadata
    told = {
        "run_id": [meta.run_id, context.run_id],
        "message_id": meta.message_id,
        "nodes": [meta.src_node_id, meta.dst_node_id, context.node_id],
        "group_id": meta.group_id,
        "ttl": meta.ttl,
        "created_at": meta.created_at,
        "message_type": meta.message_type,
        "node_config": context.node_config,
        "run_config": context.run_config,
    }
    return Message(RecordDict({"told": ConfigRecord({"json": json.dumps(told)})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Send everything back, and count in the state."""
    before = context.state.get("seen", {"times": 0})["times"]
    context.state["seen"] = MetricRecord({"times": before + 1})
    return Message(message.content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Fail, in the way that it is asked to."""
    if "raise" in message.content:
        context.state["lost"] = MetricRecord({"times": 1})
        raise ZeroDivisionError("division by zero")
    return Message(Error(12, "no data"), reply_to=message)
