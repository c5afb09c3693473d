"""The durable state on PostgreSQL, which processes on several machines can use.

Read in this order:

- `server`, `faults`, `schema`, `opening`: the database, how it is reached, and its tables;
- `transaction`, `steps`: what the steps of `sql` need besides;
- `processes`, `news`: how processes over one database know of each other, and what they tell;
- `session`, `committing`, `clock`: the connection that stays, the one that writes, the time;
- `messages`: the same for Flower 1.23 and later, whose tables lie beside them;
- `engine`: all of it as `durable.engine.Engine`, and `PostgresState` over it.
"""

from __future__ import annotations

from superlink_trio.state.postgres.engine import PostgresState

__all__ = ["PostgresState"]
