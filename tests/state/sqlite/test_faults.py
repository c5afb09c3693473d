"""Faults of the file, made for real: what is said of them, and that work goes on afterwards."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import answer_to, task_ins
from stores import settle
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.state import CannotOpen, SqliteState, StateUnavailable
from superlink_trio.wire.runs import Fab, Run

MiB = 1024 * 1024
_NOBODY = 65534


async def cannot_open(path: Path) -> str:
    with pytest.raises(CannotOpen) as caught:
        await SqliteState(str(path), patience=0.05).serve(stopping=trio.Event())
    assert str(path) in str(caught.value)
    return str(caught.value)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


# When it is opened


async def test_the_folder_is_missing(tmp_path: Path) -> None:
    assert "does not exist" in await cannot_open(tmp_path / "nowhere" / "state.db")


async def test_the_file_is_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in await cannot_open(tmp_path)


async def test_the_file_is_no_database(file: Path) -> None:
    file.write_text("Dear diary, " * 1000)
    assert "is no SQLite database" in await cannot_open(file)
    assert file.read_text().startswith("Dear diary")


async def test_an_empty_file_is_a_new_database(file: Path, serving: Any) -> None:
    file.touch()
    async with serving() as state:
        assert await state.create_run(Run())


async def test_a_newer_schema_is_refused_and_left_alone(file: Path, serving: Any) -> None:
    async with serving():
        pass
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE superlink_schema SET version = 99")
    before = file.read_bytes()
    told = await cannot_open(file)
    assert "newer release" in told
    assert "99" in told
    assert file.read_bytes() == before


async def test_everything_but_the_header_is_damaged(file: Path, serving: Any) -> None:
    async with serving():
        pass
    pages = file.read_bytes()
    file.write_bytes(pages[:100] + b"\xff" * (len(pages) - 100))
    assert "is damaged" in await cannot_open(file)


async def test_another_program_has_it(file: Path, serving: Any, start: Callable[..., Any]) -> None:
    async with serving():
        pass
    program = start("lock.py", file)
    await program.told()
    assert "is locked by another program" in await cannot_open(file)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """Give a folder, and be nobody who could write to it against its permissions."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    before = os.geteuid()
    if before == 0:
        os.seteuid(_NOBODY)
    yield folder
    os.seteuid(before)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what others may not write to")
async def test_the_file_is_read_only(unprivileged: Path) -> None:
    os.seteuid(0)
    with closing(sqlite3.connect(unprivileged / "state.db")) as connection, connection:
        connection.execute("CREATE TABLE mine(x)")
    os.seteuid(_NOBODY)
    assert "cannot be written" in await cannot_open(unprivileged / "state.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what others may not write to")
async def test_the_folder_is_read_only(unprivileged: Path) -> None:
    assert "check the permissions" in await cannot_open(unprivileged / "state.db")


# While it is used


async def test_the_file_may_not_grow(serving: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(max_bytes=MiB) as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        large, small = task_ins(run_id, node_id, content=b"a" * MiB), task_ins(run_id, node_id)
        with pytest.raises(StateUnavailable, match="cannot grow, its disk is full: make room"):
            await state.store_task_ins([small, large])
        assert await state.take_task_ins(node_id) is None, "all or none"
        await state.store_task_ins([small])
        assert await state.take_task_ins(node_id) == small
    assert len(errors(caplog)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_the_disk_is_full(
    small_disk: Path, serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(small_disk / "state.db") as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        ballast = small_disk / "ballast"
        room = os.statvfs(small_disk)
        ballast.write_bytes(b"x" * (room.f_bavail * room.f_bsize))
        task = task_ins(run_id, node_id, content=os.urandom(MiB))
        for _ in range(2):
            with pytest.raises(StateUnavailable, match="disk is full"):
                await state.store_task_ins([task])
        assert len(errors(caplog)) == 1, "a fault is told once"
        ballast.unlink()
        await state.store_task_ins([task])
        assert await state.take_task_ins(node_id) == task
        assert caplog.messages[-1] == "The database works again"


async def test_the_file_vanishes_and_comes_back(file: Path, serving: Any) -> None:
    elsewhere = file.with_suffix(".away")
    async with serving() as state:
        run_id = await state.create_run(Run())
        file.rename(elsewhere)
        with pytest.raises(StateUnavailable, match="has vanished: put it back"):
            await state.create_node(30.0)
        with pytest.raises(StateUnavailable, match="has vanished"):
            await state.get_run(run_id)
        assert not file.exists()
        elsewhere.rename(file)
        node_id = await state.create_node(30.0)
        assert await state.online_nodes(run_id) == [node_id]


async def test_another_file_takes_its_place(file: Path, serving: Any) -> None:
    async with serving() as state:
        file.rename(file.with_suffix(".away"))
        file.touch()
        with pytest.raises(StateUnavailable, match="was replaced by another file"):
            await state.create_node(30.0)


def damage(file: Path, table: str) -> None:
    """Overwrite the first page of a table."""
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = connection.execute(query, (table,)).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with file.open("r+b") as pages:
        pages.seek((page - 1) * size)
        pages.write(b"\xff" * size)


async def test_a_table_is_damaged(file: Path, serving: Any) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run(), Fab(hash="h", content=b"bundle"))
    damage(file, "superlink_fab")
    async with serving() as state:
        with pytest.raises(StateUnavailable, match="is damaged: restore a backup"):
            await state.get_fab("h")
        with pytest.raises(StateUnavailable, match="is damaged"):
            await state.create_run(Run(), Fab(hash="i", content=b"other"))
        assert await state.get_run(run_id) is not None
        assert await state.create_node(30.0)


async def test_what_every_start_needs_is_damaged(file: Path, serving: Any) -> None:
    async with serving():
        pass
    damage(file, "superlink_process")
    assert "is damaged" in await cannot_open(file)
    assert os.listdir(file.parent) == [file.name], "it left nothing behind"


async def test_a_payload_is_damaged(file: Path, serving: Any) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        task = task_ins(run_id, node_id, content=b"m" * MiB)
        answered = task_ins(run_id, node_id)
        await state.store_task_ins([answered, task])
        await state.store_task_res(answer_to(answered, content=b"n" * MiB))
    pages = file.read_bytes()
    for text in (b"m" * 4000, b"n" * 4000):
        start = pages.index(text, pages.index(text) + 4096) // 4096 * 4096
        pages = pages[:start] + b"\xff" * 4096 + pages[start + 4096 :]
    file.write_bytes(pages)
    async with serving() as state:
        for _ in range(2):
            with pytest.raises(StateUnavailable, match="is damaged"):
                await state.take_task_ins(node_id)
            with pytest.raises(StateUnavailable, match="is damaged"):
                await state.take_task_res([answered.task_id], MiB)


async def test_another_program_locks_it_for_a_while(
    file: Path, serving: Any, start: Callable[..., Any], mock_clock: MockClock
) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        task, answered = task_ins(run_id, node_id), task_ins(run_id, node_id)
        await state.store_task_ins([task, answered])
        taken = await state.take_task_ins(node_id)
        await state.store_task_res(answer_to(answered))
        answers = await state.take_task_res([answered.task_id], MiB)
        program = start("lock_writing.py", file)
        await program.told()
        with pytest.raises(StateUnavailable, match="is locked by another program"):
            await state.create_node(30.0)
        assert await state.get_run(run_id) is not None, "reading goes on"
        await state.put_back_task_ins(taken)
        await state.put_back_task_res(answers)
        await state.ping(node_id, 90.0, readmit=False)
        mock_clock.jump(1)
        await settle(state)
        program.tell()
        await program.told()
        mock_clock.jump(1)
        await settle(state)
        assert await state.take_task_ins(node_id) == task, "put back when it could be"
        assert len(await state.take_task_res([answered.task_id], MiB)) == 1
        mock_clock.jump(60)
        assert await state.online_nodes(run_id) == [node_id]


async def test_a_cancelled_word_is_kept(serving: Any) -> None:
    async with serving() as state:
        run_id, node_id = await state.create_run(Run()), await state.create_node(30.0)
        task = task_ins(run_id, node_id)
        await state.store_task_ins([task])
        taken = await state.take_task_ins(node_id)
        with trio.CancelScope() as scope:
            scope.cancel()
            await state.put_back_task_ins(taken)
        await settle(state)
        assert await state.take_task_ins(node_id) == task


async def test_a_store_that_is_not_open_says_so(file: Path, serving: Any) -> None:
    state = SqliteState(str(file))
    for call in (state.create_node(30.0), state.get_run(1)):
        with pytest.raises(StateUnavailable, match="is not open"):
            await call
    async with serving() as served:
        pass
    with pytest.raises(StateUnavailable, match="is not open"):
        await served.create_node(30.0)


async def test_calls_that_wait_when_it_is_cancelled_are_told(
    file: Path, start: Callable[..., Any]
) -> None:
    state = SqliteState(str(file), patience=0.2)
    told: list[str] = []

    async def call() -> None:
        with pytest.raises(StateUnavailable) as caught:
            await state.create_node(30.0)
        told.append(str(caught.value))

    async with trio.open_nursery() as nursery, trio.open_nursery() as serving:
        await serving.start(
            lambda task_status: state.serve(stopping=trio.Event(), task_status=task_status)
        )
        await settle(state)
        program = start("lock_writing.py", file)
        await program.told()
        for _ in range(2):
            nursery.start_soon(call)
            await wait_all_tasks_blocked()
        serving.cancel_scope.cancel()
    assert told == ["The database was closed."] * 2
