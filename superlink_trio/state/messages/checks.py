"""What has to hold of a message's metadata, whatever keeps it."""

from __future__ import annotations

import math

from superlink_trio.state.messages.interface import SERVER, Wrong
from superlink_trio.wire.messages import Envelope


def check_metadata(envelope: Envelope, run_id: int, source: int) -> None:
    """Raise Wrong where a message names another run, sender or reader than it has, or no time.

    Its reader goes by what the message says: who sent it is not to be said by whoever sends it.
    """
    meta = envelope.message.metadata
    if meta.run_id != run_id:
        raise Wrong(f"a message of run {run_id} says that it is one of run {meta.run_id}")
    if meta.src_node_id != source:
        raise Wrong(f"a message from node {source} says that it is from node {meta.src_node_id}")
    if SERVER not in (source, meta.dst_node_id):
        raise Wrong(f"a reply is for node {SERVER}, which is the run, not {meta.dst_node_id}")
    if source == SERVER and not (meta.ttl > 0 and math.isfinite(meta.created_at)):
        raise Wrong(
            f"a message's ttl has to be above 0, and created_at a time: they are {meta.ttl} and "
            f"{meta.created_at}"
        )
