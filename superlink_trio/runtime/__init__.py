"""Runs of Flower 1.23 and later: what their processes ask for, and what starts them."""

from superlink_trio.runtime.api import runtime_api
from superlink_trio.runtime.launcher import Launcher
from superlink_trio.runtime.signatures import Signatures
from superlink_trio.runtime.superexecs import Acquiring, NoSuperExecs, SuperExecs
from superlink_trio.runtime.taken import TakenRuns

__all__ = [
    "Acquiring",
    "Launcher",
    "NoSuperExecs",
    "Signatures",
    "SuperExecs",
    "TakenRuns",
    "runtime_api",
]
