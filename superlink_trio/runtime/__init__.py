"""Runs of Flower 1.23 and later: what their processes ask for, and what starts them."""

from superlink_trio.runtime.api import runtime_api
from superlink_trio.runtime.launcher import Launcher

__all__ = ["Launcher", "runtime_api"]
