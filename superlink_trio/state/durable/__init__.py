"""What durable stores share, whatever database they are on.

Read in this order:

- `engine`: what a database has to be able to do, and what a step and a commit are;
- `writer`: gathers steps and commits them together;
- `heartbeats`, `known`: what a process keeps in memory, and how it learns of what another one did
  to the same database;
- `upkeep`: what has to be written in the end, and what is done now and then;
- `store`: `DurableState`, the contract, which puts them together.
"""

from __future__ import annotations

from superlink_trio.state.durable.store import DurableState

__all__ = ["DurableState"]
