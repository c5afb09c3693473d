"""A file that is opened: who may read it, and which releases and processes it is shared with."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import task_ins
from state.sqlite.older import TO_SECOND

from superlink_trio.state import CannotOpen, SqliteState, StateUnavailable
from superlink_trio.state.sqlite.backup import back_up
from superlink_trio.state.sqlite.report import report
from superlink_trio.wire.runs import Run


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def start_and_stop(database: str) -> None:
    stopping = trio.Event()
    stopping.set()
    await SqliteState(database).serve(stopping=stopping)


async def test_a_new_file_and_what_is_beside_it_are_for_its_owner_only(
    serving: Any, file: Path
) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run())
        await state.store_task_ins([task_ins(run_id, 4711)])
        copy = file.with_name("copy.db")
        back_up(str(file), str(copy))
        assert {f"{file.name}-wal", f"{file.name}-shm"} < set(os.listdir(file.parent))
        assert modes(file.parent) == {0o600}
    async with serving(copy) as state:
        assert await state.get_run(run_id) is not None


async def test_what_is_beside_a_file_is_for_those_who_may_use_the_file(
    serving: Any, file: Path
) -> None:
    file.touch()
    file.chmod(0o660)
    async with serving() as state:
        await state.create_run(Run())
        assert modes(file.parent) == {0o660}
        assert len(os.listdir(file.parent)) == 5


async def test_an_sqlite_that_is_too_old_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    for name in (str(file), ":memory:"):
        with pytest.raises(CannotOpen, match=r"needs SQLite 3\.35.*has 3\.34\.1"):
            await start_and_stop(name)
    with pytest.raises(CannotOpen, match="needs SQLite"):
        back_up(str(file), str(file.with_name("copy")))
    assert os.listdir(file.parent) == []


@pytest.fixture
def old_process(file: Path) -> Iterator[socket.socket]:
    """Be a process of a release that told others of itself by a socket only."""
    mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    mailbox.bind(str(file.with_name("old")))
    yield mailbox
    mailbox.close()


def execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


async def refused(file: Path) -> None:
    with pytest.raises(CannotOpen, match=r"older release .* stop that one first"):
        await start_and_stop(str(file))


async def test_a_file_is_not_migrated_under_a_process_of_an_older_release(
    serving: Any, file: Path, tmp_path: Path, old_process: socket.socket
) -> None:
    (tmp_path / "elsewhere").mkdir()
    async with serving():
        pass
    execute(
        file,
        *TO_SECOND,
        f"INSERT INTO superlink_process(socket) VALUES ('{old_process.getsockname()}')",
    )
    back_up(str(file), str(tmp_path / "elsewhere" / "copy.db"))
    assert report(str(file), 0.0).processes == 1
    for _ in range(2):
        await refused(file)
    assert sorted(os.listdir(file.parent)) == ["elsewhere", "old", file.name]
    old_process.close()
    async with serving() as state:
        assert await state.create_node(30.0)


async def test_a_process_of_the_release_before_is_seen_by_its_lock(
    serving: Any, file: Path
) -> None:
    async with serving() as state:
        execute(file, "UPDATE superlink_schema SET version = version - 1")
        await refused(file)
        assert await state.create_node(30.0)


async def test_who_finds_the_file_migrated_by_a_newer_release_leaves_it_alone(
    serving: Any, file: Path
) -> None:
    async with serving() as state:
        execute(file, "DELETE FROM superlink_process", "UPDATE superlink_schema SET version = 99")
        with pytest.raises(StateUnavailable, match="newer release"):
            await state.create_node(30.0)
