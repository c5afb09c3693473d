"""Have an SQLite file for oneself alone, so that nobody else can even read it, until killed."""

from __future__ import annotations

import sqlite3
import sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("true", flush=True)
sys.stdin.readline()
