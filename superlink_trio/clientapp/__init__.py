"""Write an app for simulated nodes without `flwr`.

An app is any callable that takes a Message and a Context and gives a Message::

    from superlink_trio.clientapp import Context, Message, RecordSet

    def app(message: Message, context: Context) -> Message:
        weights = message.content.parameters["weights"]
        seen = context.state.metrics.setdefault("seen", {"rounds": 0})
        seen["rounds"] += 1
        step = context.node_config["partition-id"] + 1
        return message.reply(
            RecordSet(
                parameters={"weights": {name: array + step for name, array in weights.items()}},
                metrics={"fit": {"num-examples": 8, "rounds": seen["rounds"]}},
            )
        )

What a driver built on `flwr` sends arrives in these types, and it reads what they carry.
"""

from __future__ import annotations

from superlink_trio.clientapp.messages import Context, Error, Message
from superlink_trio.clientapp.records import Array, RecordSet, decode, encode

__all__ = ["Array", "Context", "Error", "Message", "RecordSet", "decode", "encode"]
