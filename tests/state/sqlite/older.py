"""Statements that make a file one of an older release."""

from __future__ import annotations

import re

from superlink_trio.state.sqlite.schema import MIGRATIONS

TO_FOURTH = [
    "DROP INDEX superlink_gives_way",
    "ALTER TABLE superlink_supernode DROP COLUMN registered_itself",
    "ALTER TABLE superlink_app_run DROP COLUMN simulation",
    "UPDATE superlink_schema SET version = 4",
]

TO_THIRD = [
    *(
        f"DROP TABLE {found[1]}"
        for statement in MIGRATIONS[3]
        if (found := re.match(r"CREATE TABLE (\w+)", statement))
    ),
    "DROP TRIGGER superlink_discount_fab",
    "UPDATE superlink_schema SET version = 3",
]

TO_SECOND = [
    *TO_THIRD,
    "DROP TABLE superlink_simulated_node",
    "UPDATE superlink_schema SET version = 2",
]
