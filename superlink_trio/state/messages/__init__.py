"""Nodes, runs and messages of Flower 1.23 and later. Read `interface` first."""

from superlink_trio.state.durable import DurableState
from superlink_trio.state.interface import State
from superlink_trio.state.messages.durable import DurableMessages
from superlink_trio.state.messages.interface import (
    SERVER,
    Claim,
    Logged,
    MessagesCensus,
    MessageState,
    NewRun,
    NotFound,
    NotPermitted,
    Pushed,
    Wrong,
)
from superlink_trio.state.messages.memory import MemoryMessages
from superlink_trio.wire.messages import Envelope, NodeRecord, Outcome, RunRecord, RunStatus

__all__ = [
    "SERVER",
    "Claim",
    "DurableMessages",
    "Envelope",
    "Logged",
    "MemoryMessages",
    "MessageState",
    "MessagesCensus",
    "NewRun",
    "NodeRecord",
    "NotFound",
    "NotPermitted",
    "Outcome",
    "Pushed",
    "RunRecord",
    "RunStatus",
    "Wrong",
    "messages_beside",
]


def messages_beside(state: State) -> MessageState:
    """Make the store of nodes, runs and messages beside a state: in its file, if it has one.

    It is served after the state is, and has ended before that does.
    """
    if isinstance(state, DurableState):
        return DurableMessages(state)
    return MemoryMessages(clock=state.now, limits=state.limits)
