"""The durable store: one SQLite file, the reference's tables and ours beside them.

Read in this order:

- `transaction`: a step, what a step tells others, and what steps know of the file;
- `task_ins`, `task_res`, `nodes`, `runs`, `sweeping`: the steps, plain functions over SQL;
- `writer`: gathers steps and commits them together; `readers`: everything that only looks;
- `heartbeats`, `waiting`, `presence`: what a process keeps in memory, and how it learns of
  what another one did to the same file;
- `schema`, `opening`, `faults`: the file itself;
- `store`: `SqliteState`, which puts them together.
"""

from __future__ import annotations

from superlink_trio.state.sqlite.store import SqliteState

__all__ = ["SqliteState"]
