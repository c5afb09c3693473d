"""How messages of Flower 1.23 and later are followed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from superlink_trio.rounds.rounds import Answered, Asked
from superlink_trio.state.messages import rules
from superlink_trio.state.messages.interface import SESSION_TIMEOUT
from superlink_trio.wire.messages import Envelope


def asked(instructions: Iterable[Envelope], now: float) -> Iterator[Asked]:
    """Give what is followed of instructions that a run has just pushed; `now`: Unix seconds."""
    for envelope in instructions:
        meta = envelope.message.metadata
        yield Asked(
            id=meta.message_id,
            run_id=meta.run_id,
            group_id=meta.group_id,
            kind=meta.message_type,
            node_id=meta.dst_node_id,
            since=now,
            expires_at=rules.expires_at(envelope.message, now) + SESSION_TIMEOUT,
        )


def answered(replies: Iterable[Envelope]) -> Iterator[Answered]:
    """Give what is followed of replies that a run is given, and of errors that stand in."""
    for envelope in replies:
        message = envelope.message
        yield Answered(
            asked=message.metadata.reply_to_message_id,
            run_id=message.metadata.run_id,
            group_id=message.metadata.group_id,
            error=message.error.reason if message.HasField("error") else None,
        )
