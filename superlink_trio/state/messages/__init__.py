"""Nodes, runs and messages of Flower 1.23 and later. Read `interface` first."""

from superlink_trio.state.messages.interface import (
    SERVER,
    Claim,
    Logged,
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
    "Envelope",
    "Logged",
    "MemoryMessages",
    "MessageState",
    "NewRun",
    "NodeRecord",
    "NotFound",
    "NotPermitted",
    "Outcome",
    "Pushed",
    "RunRecord",
    "RunStatus",
    "Wrong",
]
