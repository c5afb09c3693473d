"""`superlink-trio backup` and `superlink-trio inspect`, on files that are in use."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio
from builders import answer_to, task_ins
from peering.parcels import parcel
from postgresql import the_server
from stores import serving as serving_any

from superlink_trio import cli
from superlink_trio.state import SqliteState, State, open_state
from superlink_trio.state.durable import DurableState
from superlink_trio.state.messages import SERVER, DurableMessages, NewRun
from superlink_trio.wire.runs import Fab, Run

LARGE = b"m" * 100_000


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[SqliteState]:
    state = SqliteState(str(path))
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            lambda task_status: state.serve(stopping=stopping, task_status=task_status)
        )
        yield state
        stopping.set()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def state(file: Path) -> AsyncIterator[SqliteState]:
    async with serving(file) as state:
        yield state


async def fill(state: State) -> tuple[int, int, list[str]]:
    """Leave a task in each state: answered, handed over, under way, out of time, and two queued."""
    run = Run(fab_id="me/app", fab_version="1.0", fab_hash="h")
    run_id = await state.create_run(run, Fab(hash="h", content=b"bundle"))
    node_id = await state.create_node(60.0)
    now = time.time()
    tasks = [task_ins(run_id, node_id, now=now - 120, content=LARGE) for _ in range(5)]
    tasks.append(task_ins(run_id, node_id, now=now - 7200))
    await state.store_task_ins(tasks)
    await state.store_task_res(answer_to(tasks[0], now=now))
    for confirmed in (True, False):
        task = await state.take_task_ins(node_id, "c1")
        assert task is not None
        if confirmed:
            await state.confirm_task_ins(task)
    return run_id, node_id, [task.task_id for task in tasks]


async def test_a_copy_is_served_like_the_original(
    state: SqliteState, file: Path, tmp_path: Path
) -> None:
    run_id, node_id, task_ids = await fill(state)
    copy = tmp_path / "copy.db"
    assert cli.main(["backup", str(file), str(copy)]) == 0
    assert await state.create_node(30.0), "the original goes on"
    async with serving(copy) as copied:
        assert await copied.online_nodes(run_id) == [node_id]
        taken = [await copied.take_task_ins(node_id, "c1") for _ in range(5)]
        assert [task and task.task_id for task in taken] == [*task_ids[1:5], None]
        assert len(await copied.take_task_res(task_ids[:1], 1)) == 1


async def test_inspect_for_people(
    state: SqliteState, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, _, _ = await fill(state)
    assert cli.main(["inspect", str(file)]) == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]
    assert ["served", "by", "1", "process"] in lines
    assert ["nodes", "1,", "1", "of", "them", "online"] in lines
    assert ["payloads", "1,", "98", "KiB"] in lines
    assert ["queued", "2", "2", "min"] in lines
    assert ["out", "of", "time", "1", "2", "h"] in lines
    assert [str(run_id), "me/app", "1.0", "2", "1", "1", "1", "1"] in lines


async def test_inspect_for_machines(
    state: SqliteState, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, _, _ = await fill(state)
    assert cli.main(["inspect", "--json", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    counts = {state: tasks["count"] for state, tasks in told["tasks"].items()}
    assert counts == {
        "queued": 2,
        "under way": 1,
        "handed over": 1,
        "answered": 1,
        "out of time": 1,
    }
    assert told["payloads"] == {"count": 1, "size": len(LARGE)}
    assert [(run["run_id"], run["fab_id"]) for run in told["runs"]] == [(run_id, "me/app")]


async def test_inspect_names_the_states_that_no_task_is_in(
    state: SqliteState, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await state.create_node(60.0)
    assert cli.main(["inspect", "--json", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)["tasks"]
    states = ["queued", "under way", "handed over", "answered", "out of time"]
    assert told == {name: {"count": 0, "oldest": 0.0} for name in states}


async def fill_today(state: DurableState, nursery: trio.Nursery) -> int:
    """Leave a run of today's Flower with a message that is handed out, and one that is arriving."""
    messages = DurableMessages(state)
    await nursery.start(
        lambda task_status: messages.serve(stopping=trio.Event(), task_status=task_status)
    )
    fab = Fab(hash="f", content=b"bundle")
    run_id = (
        await messages.create_run(NewRun(fab=fab, fab_id="me/\x1b[2Japp", fab_version="2"))
    ).run_id
    node_id = await messages.register_node(b"key", itself=True, name="ward\a7")
    await messages.activate_node(b"key", 30.0)
    for content in (bytes(2000), b"other"):
        sent = parcel(run_id, to=node_id, parts=(content,), created_at=time.time())
        await messages.push(run_id, SERVER, [sent.envelope])
        if content != b"other":
            for object_id, each in sent.objects.items():
                await messages.put_object(run_id, SERVER, object_id, each)
    assert await messages.take(node_id) is not None
    return run_id


async def test_inspect_tells_of_todays_flower_too(
    state: SqliteState, file: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = await fill_today(state, nursery)
    assert cli.main(["inspect", str(file)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\a" not in out
    lines = [line.split() for line in out.splitlines()]
    section = lines[lines.index(["Flower", "1.23", "and", "later"]) :]
    assert ["nodes", "1,", "1", "of", "them", "online"] in section
    assert ["objects", "2,", "2", "KiB"] in section
    assert [str(run_id), r"me/\x1b[2Japp", "2", "pending", "1", "0", "1"] in section
    assert section[5][1:] == [r"ward\x077", "online", "itself"]
    assert cli.main(["inspect", "--json", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)["messages"]
    assert section[5][0] == str(told["latest_nodes"][0]["node_id"])
    assert told["runs"][0]["messages"] == {"arriving": 1, "queued": 0, "handed out": 1}
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE superlink_schema SET version = 3")
    assert cli.main(["inspect", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["messages"] is None


def damaged(path: Path) -> Path:
    path.write_bytes(b"Dear diary, " * 1000)
    return path


def foreign(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE run(run_id)")
    return path


def newer(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE superlink_schema(version)")
        connection.execute("INSERT INTO superlink_schema VALUES (99)")
    return path


URL = "postgresql://u:s3cret@db/fl?direct=pg:1"


@pytest.mark.parametrize("files", [[URL, "copy.db"], ["state.db", URL]])
def test_a_database_on_a_server_is_copied_by_its_own_tool(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["backup", *files])
    assert caught.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    target = "'--dbname=user=u dbname=fl host=pg port=1'"
    assert f"pg_dump --format=custom --file=COPY {target} (it asks" in told
    assert "s3cret" not in told


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path, "There is no database"),
        (damaged, "is no SQLite database"),
        (foreign, "was never served by this program"),
        (newer, "was written by a newer release"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    make: object, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(make)
    path = make(tmp_path / "state.db")
    copy = tmp_path / "copy.db"
    for command in (["inspect", str(path)], ["backup", str(path), str(copy)]):
        assert cli.main(command) == 1
        told = capsys.readouterr().err
        assert what in told
        assert f"superlink-trio {command[0]}: error: " in told
    assert not list(tmp_path.glob("copy*"))


async def test_a_copy_replaces_nothing(
    state: SqliteState, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.db"
    copy.write_text("precious")
    assert cli.main(["backup", str(file), str(copy)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert copy.read_text() == "precious"
    assert cli.main(["backup", str(file), str(tmp_path / "nowhere" / "copy.db")]) == 1
    assert "does not exist" in capsys.readouterr().err


async def test_inspect_tells_the_same_of_postgres(
    state: SqliteState, file: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id, _, _ = await fill(state)
    await fill_today(state, nursery)
    cli.main(["inspect", "--json", str(file)])
    of_file = json.loads(capsys.readouterr().out)
    url = the_server().new_schema()
    async with serving_any(other := open_state(url)):
        run_id, _, _ = await fill(other)
        assert isinstance(other, DurableState)
        await fill_today(other, nursery)
        assert cli.main(["inspect", url]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert cli.main(["inspect", "--json", url]) == 0
    told = json.loads(capsys.readouterr().out)
    assert ["served", "by", "1", "process"] in lines
    assert [str(run_id), "me/app", "1.0", "2", "1", "1", "1", "1"] in lines
    assert told.keys() == of_file.keys() - {"free", "log_size"}
    for part in ("processes", "nodes", "nodes_online", "payloads", "answers", "bundles"):
        assert told[part] == of_file[part]
    for part in ("nodes", "nodes_online", "objects"):
        assert told["messages"][part] == of_file["messages"][part]
    assert told["messages"]["runs"][0]["messages"] == of_file["messages"]["runs"][0]["messages"]
    assert told["size"] > len(LARGE)


def test_inspect_refuses_a_postgres_that_is_no_superlinks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["inspect", the_server().new_schema()]) == 1
    assert "has no tables of a SuperLink" in capsys.readouterr().err
    assert cli.main(["inspect", "postgresql://u:s3cret@/fl?host=/nowhere"]) == 1
    told = capsys.readouterr().err
    assert "cannot be reached: start it" in told
    assert "s3cret" not in told
