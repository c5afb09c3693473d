"""Database files that Flower's own releases wrote, and that they read again afterwards."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import trio
from builders import answer_to, task_ins
from interop.peers import VERSIONS

from superlink_trio.state import Admission, SqliteState
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS, Task, TaskError

pytestmark = pytest.mark.interop

_PROGRAM = Path(__file__).parent / "programs" / "files.py"
_LARGE = b"m" * 100_000


@pytest.fixture(params=VERSIONS)
def release(request: pytest.FixtureRequest) -> str:
    version: str = request.param
    return version


@pytest.fixture
def reference(release: str, interpreters: Mapping[str, Path], tmp_path: Path) -> Any:
    """Give a function that lets the release's own program work on the file."""
    file = tmp_path / "state.db"

    def work(what: str, *arguments: object) -> Any:
        command = [str(each) for each in (interpreters[release], _PROGRAM, what, file, *arguments)]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout.splitlines()[-1])

    return work


@pytest.fixture
def served(tmp_path: Path) -> Any:
    """Give a function that serves the file inside a block."""

    @asynccontextmanager
    async def serve() -> AsyncIterator[SqliteState]:
        state = SqliteState(str(tmp_path / "state.db"))
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: state.serve(stopping=stopping, task_status=task_status)
            )
            yield state
            stopping.set()

    return serve


def tables(file: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
            " AND name NOT LIKE 'superlink_%' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        ).fetchall()


async def hand_over(state: SqliteState, node_id: int) -> Task:
    task = await state.take_task_ins(node_id, "c1")
    assert task is not None
    await state.confirm_task_ins(task)
    return task


async def test_its_file_is_served(reference: Any, served: Any, release: str) -> None:
    wrote = reference("write")
    tasks, node_id = wrote["tasks"], wrote["node"]
    async with served() as state:
        run = await state.get_run(wrote["run"])
        expected = Run(
            run_id=wrote["run"],
            fab_id="" if release == "1.8.0" else "me/app",
            fab_version="" if release == "1.8.0" else "1.2.3",
            override_config={"lr": 0.5} if release in ("1.10.0", "1.11.1") else {},
        )
        assert run == expected
        assert await state.online_nodes(run.run_id) == [node_id]
        assert await state.ping(node_id, 30.0, readmit=False) is Admission.KNOWN
        # What was delivered and is not answered when its node asks again was lost with the server.
        for name in ("delivered", "queued"):
            task = await hand_over(state, node_id)
            assert task.task_id == tasks[name]
            assert isinstance(task.content, bytes)
            assert name.encode() in task.content
            await state.store_task_res(answer_to(task, now=state.now()))
        assert await state.take_task_ins(node_id, "c1") is None
        assert (await hand_over(state, ANONYMOUS)).task_id == tasks["anonymous"]
        [answer] = await state.take_task_res([tasks["answered"]], 2**29)
        assert isinstance(answer.content, bytes)
        assert b"answer" in answer.content
        assert answer.ancestry == (tasks["answered"],)


async def test_it_reads_its_file_again(reference: Any, served: Any, tmp_path: Path) -> None:
    wrote = reference("write")
    before = tables(tmp_path / "state.db")
    run_id, node_id = wrote["run"], wrote["node"]
    async with served() as state:
        task = task_ins(run_id, node_id, now=state.now(), content=b"")
        large = task_ins(run_id, node_id, now=state.now(), content=_LARGE)
        await state.store_task_ins([task, large])
        new_run = await state.create_run(Run(fab_id="other", override_config={"x": 1}))
        new_node = await state.create_node(30.0)
        delivered = await hand_over(state, node_id)
        assert delivered.task_id == wrote["tasks"]["delivered"]
        await state.store_task_res(answer_to(delivered, now=state.now()))
    after = dict(tables(tmp_path / "state.db"))
    assert before == [(name, after[name]) for name, _ in before], "its tables are as they were"

    found = reference("read", run_id, node_id, wrote["tasks"]["answered"])
    assert found["nodes"] == sorted([node_id, new_node])
    assert found["answers"] == [["answer"]]
    assert found["taken"] == [[wrote["tasks"]["queued"], "queued"], [task.task_id]]
    assert found["keys"] in (None, [node_id, "private"])
    assert reference("read", new_run, node_id, wrote["tasks"]["answered"])["nodes"]

    async with served() as state:
        # What the reference did meanwhile counts; what it could not read is still there.
        assert await state.get_run(new_run)
        got = [(await hand_over(state, node_id)).task_id for _ in range(5)]
        assert large.task_id in got
        assert found["pushed"] in got


async def test_an_error_survives(reference: Any, served: Any) -> None:
    wrote = reference("write")
    error = TaskError(2, "ValueError:<'x'>")
    async with served() as state:
        task_id = wrote["tasks"]["queued"]
        assert await state.store_error(task_id, error, producer=None)
    reference("read", wrote["run"], wrote["node"], wrote["tasks"]["answered"])
    async with served() as state:
        [answer] = await state.take_task_res([task_id], 2**29)
        assert answer.content == error
