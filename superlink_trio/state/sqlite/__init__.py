"""The durable state on SQLite: one file, the reference's tables and ours beside them.

Read in this order:

- `schema`, `opening`, `faults`: the file itself;
- `transaction`: what a step is given, and what it notifies others of;
- `task_ins`, `task_res`, `nodes`, `runs`, `sweeping`: the steps, plain functions over SQL, and
  `steps`, which gives them the names that the state calls them by;
- `messages`: the steps for Flower 1.23 and later, over tables of their own;
- `committing`: steps in one transaction; `counting`: what is in the file, for operators;
- `presence`: how processes over one file know of each other;
- `engine`: all of it as `durable.engine.Engine`, and `SqliteState` over it.
"""

from __future__ import annotations

from superlink_trio.state.sqlite.engine import SqliteState

__all__ = ["SqliteState"]
