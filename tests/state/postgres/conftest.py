from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import psycopg
import pytest
from postgresql import Server, the_server
from state.sqlite.conftest import start

__all__ = ["start"]

Ask: TypeAlias = Callable[[str], list[tuple[Any, ...]]]

BREAK_ALL = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()
    AND application_name = current_setting('application_name')"""
"""A statement that ends every connection to the schema but that on which it is said."""

BREAK_SESSIONS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity, pg_namespace AS n
    WHERE nspname = current_schema() AND query = 'LISTEN superlink_' || n.oid"""
"""The same of those that stay, on which processes listen."""


@pytest.fixture
def server() -> Server:
    return the_server()


@pytest.fixture
def url(server: Server) -> str:
    """Name an empty schema."""
    return server.new_schema()


@pytest.fixture
def ask(url: str) -> Iterator[Ask]:
    """Look into the database, as an administrator does."""
    with psycopg.connect(url, autocommit=True) as connection:

        def ask(statement: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement.encode())
            return [] if cursor.description is None else cursor.fetchall()

        yield ask
