"""How much a store takes, and what it says when that is reached."""

from __future__ import annotations

import enum
import sys

import attrs


class Limit(enum.Enum):
    """What there may be only so much of."""

    NODES = "registered nodes"
    TASKS_PER_NODE = "tasks for one node that have no answer"
    ASKED_SIZE = "bytes stored when a task or a bundle comes"
    STORED_SIZE = "bytes stored when an answer comes"


class LimitReached(Exception):
    """There is no room for this now: nothing was changed, and it may work later.

    `value` of what the limit is about are there, `more` would be over the `most` that are allowed.
    `node_id`: the node whose tasks they are, where the limit is about those.
    """

    def __init__(
        self, limit: Limit, *, value: int, more: int, most: int, node_id: int | None = None
    ) -> None:
        super().__init__(f"{limit.value}: {value} and {more} more are over {most}")
        self.limit = limit
        self.value = value
        self.more = more
        self.most = most
        self.node_id = node_id


@attrs.frozen(kw_only=True)
class StateLimits:
    """How much a store takes. The checks are its own: a store only counts."""

    stored_size: int = sys.maxsize
    """Bytes of payloads and bundles, equal ones once where the store keeps them once, and of what
    tasks take besides."""
    nodes: int = sys.maxsize
    """Registered nodes. Those that are offline give way to new ones, but for those that are kept:
    see `rules.gives_way`."""
    tasks_per_node: int = sys.maxsize
    """TaskIns for one node that have no answer. Anonymous nodes count as one."""

    def check_node(self, registered: int) -> None:
        """Raise LimitReached where `registered` nodes leave no room for one more."""
        _check(Limit.NODES, registered, 1, self.nodes)

    def check_queue(self, node_id: int, unanswered: int, more: int) -> None:
        """Raise LimitReached where a node with `unanswered` tasks may not have `more`."""
        _check(Limit.TASKS_PER_NODE, unanswered, more, self.tasks_per_node, node_id)

    def check_asked(self, stored: int, more: int) -> None:
        """Raise LimitReached where TaskIns or a bundle of `more` bytes do not fit.

        They may fill half: were there no room for answers, no task would ever be freed.
        """
        _check(Limit.ASKED_SIZE, stored, more, self.stored_size // 2)

    def check_answer(self, stored: int, more: int) -> None:
        """Raise LimitReached where an answer of `more` bytes does not fit."""
        _check(Limit.STORED_SIZE, stored, more, self.stored_size)


NO_LIMITS = StateLimits()


def _check(limit: Limit, value: int, more: int, most: int, node_id: int | None = None) -> None:
    if value + more > most:
        raise LimitReached(limit, value=value, more=more, most=most, node_id=node_id)
