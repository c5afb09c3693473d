"""The durable state on SQLite: one file, the reference's tables and ours beside them.

Read in this order:

- `schema`, `opening`, `faults`: the file itself;
- `transaction`, `steps`, `sweeping`: what the steps of `sql` need besides; `messages`: what those
  for Flower 1.23 and later do;
- `committing`: steps in one transaction; `report`: what is in the file, for operators;
- `presence`: how processes over one file know of each other;
- `engine`: all of it as `durable.engine.Engine`, and `SqliteState` over it.
"""

from __future__ import annotations

from superlink_trio.state.sqlite.engine import SqliteState

__all__ = ["SqliteState"]
