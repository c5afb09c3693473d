"""Keep others from writing to an SQLite file until told to let go."""

from __future__ import annotations

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("true", flush=True)
sys.stdin.readline()
connection.rollback()
print("false", flush=True)
sys.stdin.readline()
