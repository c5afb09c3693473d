"""An app of simulated nodes: answers with how many bytes the arrays take that it was sent."""

from __future__ import annotations

from superlink_trio.clientapp import Array, Context, Message, RecordSet


def app(message: Message, context: Context) -> Message:
    arrays = [array for record in message.content.parameters.values() for array in record.values()]
    taken = sum(len(array.data) if isinstance(array, Array) else array.nbytes for array in arrays)
    return message.reply(RecordSet(metrics={"arrays": {"bytes": taken}}))
