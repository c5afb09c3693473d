"""What a node does: it adds one, and tells the sum."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    [weights] = message.content["arrays"].to_numpy_ndarrays()
    content = {
        "arrays": ArrayRecord([weights + 1]),
        "metrics": MetricRecord({"num-examples": 1}),
    }
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    [weights] = message.content["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"sum": float(weights.sum()), "num-examples": 1})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
