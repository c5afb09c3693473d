"""What an app is called with and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs

from superlink_trio.clientapp.records import RecordSet
from superlink_trio.wire.runs import Scalar


@attrs.frozen
class Error:
    """What a message carries where there is no content.

    Codes that Flower knows: 0 unknown, 1 app not loaded, 2 app raised, 3 no node.
    """

    code: int
    reason: str = ""


@attrs.frozen(kw_only=True)
class Message:
    """A message to an app, or an app's reply.

    `message_type` is what the driver asks for: `train`, `evaluate` or `query`, possibly with a
    dot and a name after it. `src_node_id` is 0 for a driver. `created_at` is in Unix seconds,
    `ttl` in seconds. `body` is the RecordSet, or the Error in its place.
    """

    run_id: int
    message_id: str
    src_node_id: int
    dst_node_id: int
    reply_to_message: str = ""
    group_id: str
    message_type: str
    created_at: float
    ttl: float
    body: RecordSet | Error = attrs.field(repr=False)

    @property
    def content(self) -> RecordSet:
        """The records. Raises ValueError if the message carries an error."""
        if isinstance(self.body, Error):
            raise ValueError(f"the message has no content, it carries {self.body}")  # noqa: TRY004
        return self.body

    @property
    def error(self) -> Error | None:
        """The error, if the message carries one."""
        return self.body if isinstance(self.body, Error) else None

    def reply(self, body: RecordSet | Error, *, ttl: float | None = None) -> Message:
        """Make the reply to this message.

        Its ttl in seconds is what is left of this message's unless another is given.
        """
        now = time.time()
        return Message(
            run_id=self.run_id,
            message_id="",
            src_node_id=self.dst_node_id,
            dst_node_id=self.src_node_id,
            reply_to_message=self.message_id,
            group_id=self.group_id,
            message_type=self.message_type,
            created_at=now,
            ttl=self.ttl - (now - self.created_at) if ttl is None else ttl,
            body=body,
        )


@attrs.define(kw_only=True)
class Context:
    """What a node keeps for one run.

    `node_config` has the node's `partition-id` and the `num-partitions` of the simulation. What an
    app leaves in `state` is there again at the node's next message of the same run; if the app
    raises, everything stays as it was. `run_config` is what the run was started with.
    """

    node_id: int
    node_config: Mapping[str, Scalar]
    state: RecordSet
    run_config: Mapping[str, Scalar]
