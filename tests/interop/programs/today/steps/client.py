"""A node adds one to every weight; it tells the sum, and how often it was asked in this run."""

import time

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    time.sleep(float(context.run_config["stall"]))
    asked = count(context)
    weights = [weights + 1 for weights in message.content["arrays"].to_numpy_ndarrays()]
    content = {
        "arrays": ArrayRecord(weights),
        "metrics": MetricRecord({"asked": asked, "num-examples": 1}),
    }
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_numpy_ndarrays()
    metrics = {
        "sum": float(sum(part.sum() for part in weights)),
        "asked": count(context),
        "num-examples": 1,
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def count(context: Context) -> int:
    before = context.state.get("count")
    asked = 1 + (0 if before is None else int(before["asked"]))
    context.state["count"] = MetricRecord({"asked": asked})
    return asked
