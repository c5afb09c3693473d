"""What becomes of calls when the database cannot be used, and what an operator is told."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from builders import task_ins
from postgresql import Server
from state.postgres.conftest import BREAK_ALL, Ask
from state.postgres.network import network
from stores import serving

from superlink_trio.state import CannotOpen, StateUnavailable
from superlink_trio.state.postgres import PostgresState, schema
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import ANONYMOUS


async def until(what: str, ask: Ask) -> None:
    """Wait until a query has a row."""
    with trio.fail_after(20):
        while not ask(what):
            await trio.lowlevel.checkpoint()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """Start a PostgreSQL that a test may stop."""
    # Not in pytest's folders: PostgreSQL may be another user, and its socket's path is limited.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder) / "pg")
        server.start()
        yield server
        if server.running:
            server.kill()


async def test_nothing_that_was_acknowledged_is_lost_with_a_server(
    own_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "superlink_trio")
    acknowledged: list[str] = []
    refused: list[str] = []
    async with serving(state := PostgresState(own_server.new_schema())):
        run_id, node_id = await state.create_run(Run()), await state.create_node(600.0)

        async def push(until: int) -> None:
            while len(acknowledged) < until:
                task = task_ins(run_id, node_id, now=state.now())
                try:
                    acknowledged.extend(await state.store_task_ins([task]))
                except StateUnavailable as error:
                    refused.append(str(error))
                    return

        async def push_until_refused() -> None:
            while not refused:
                await push(len(acknowledged) + 1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(push_until_refused)
            nursery.start_soon(push_until_refused)
            while len(acknowledged) < 20:
                await trio.lowlevel.checkpoint()
            await trio.to_thread.run_sync(own_server.kill)
        assert "cannot be reached: start it" in refused[0] or "started or stopped" in refused[0]
        with pytest.raises(StateUnavailable):
            await state.get_run(run_id)
        await trio.to_thread.run_sync(own_server.start)
        with trio.fail_after(30):
            while True:
                try:
                    assert await state.get_run(run_id) is not None
                    break
                except StateUnavailable:
                    await trio.lowlevel.checkpoint()
            while len(acknowledged) < 30:
                await push(30)
        kept = set()
        while (task := await state.take_task_ins(node_id, "c")) is not None:
            kept.add(task.task_id)
            await state.confirm_task_ins(task)
    assert set(acknowledged) <= kept
    assert "The database works again" in caplog.text
    assert "has crashed" in caplog.text
    told = [each.getMessage() for each in caplog.records if each.name.startswith("superlink_trio")]
    assert len(set(told)) == len(told), "each fault once"


async def test_a_connection_that_broke_costs_one_call(url: str, ask: Ask) -> None:
    async with serving(state := PostgresState(url)):
        run_id, node_id = await state.create_run(Run()), await state.create_node(600.0)
        assert await state.get_run(run_id) is not None
        ask(BREAK_ALL)
        assert await state.get_run(run_id) is not None, "an idle connection is made anew"
        task = task_ins(run_id, node_id, now=state.now())
        # Whoever comes first finds the other one broken: this call, or what the store does itself.
        with suppress(StateUnavailable):
            await state.store_task_ins([task_ins(run_id, ANONYMOUS, now=state.now())])
        await state.store_task_ins([task])
        assert await state.take_task_ins(node_id, "c") == task
    assert ask("SELECT * FROM superlink_process") == []


async def test_what_a_call_took_that_never_heard_of_it_is_queued_again(
    url: str, server: Server, ask: Ask
) -> None:
    """The connection breaks when the server has begun to commit, which it goes on to do."""
    with tempfile.TemporaryDirectory(prefix="net-") as folder:
        behind = f"{url}&host={folder}".replace(f"host={_quoted(server)}&", "")
        state = PostgresState(behind, grace=0.0)
        async with network(Path(folder), server.folder) as net, serving(state):
            run_id, node_id = await state.create_run(Run()), await state.create_node(600.0)
            task = task_ins(run_id, node_id, now=state.now())
            await state.store_task_ins([task])
            ask(
                "CREATE FUNCTION slowly() RETURNS TRIGGER LANGUAGE plpgsql AS $$ BEGIN"
                " PERFORM pg_sleep(0.5); RETURN NULL; END $$"
            )
            ask(
                "CREATE CONSTRAINT TRIGGER slowly AFTER UPDATE ON superlink_task"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly()"
            )
            async with trio.open_nursery() as nursery:

                async def take() -> None:
                    with pytest.raises(StateUnavailable):
                        await state.take_task_ins(node_id, "c")

                nursery.start_soon(take)
                await until("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'", ask)
                await net.cut()
            await until("SELECT 1 FROM superlink_task WHERE phase = 1", ask)
            ask("DROP TRIGGER slowly ON superlink_task")
            net.broken = False
            with trio.fail_after(30):
                while not await _gets(state, node_id):
                    await trio.lowlevel.checkpoint()


def _quoted(server: Server) -> str:
    return str(server.folder).replace("/", "%2F")


async def _gets(state: PostgresState, node_id: int) -> bool:
    try:
        return await state.take_task_ins(node_id, "c") is not None
    except StateUnavailable:
        return False


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dbname": "nowhere"}, "check the user, the password, and the database's name"),
        ({"user": "nobody-known"}, "does not let us in: check the user, the password"),
        ({"host": "/nowhere"}, "cannot be reached: start it, or check the network"),
        ({"options": "-cdefault_transaction_read_only=on"}, "it is a standby: name the primary"),
        ({"options": "-csearch_path=nowhere"}, "create the one that search_path names"),
    ],
)
async def test_a_database_that_cannot_be_opened_is_refused_in_words(
    server: Server, changes: dict[str, str], words: str
) -> None:
    url = server.url(password="s3cret", **changes)
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(PostgresState(url, patience=0.0)):
            pass
    [error] = caught.value.exceptions
    assert isinstance(error, CannotOpen)
    assert words in str(error)
    assert "s3cret" not in str(error)


async def test_tables_of_another_program_are_left_alone(url: str, ask: Ask) -> None:
    ask("CREATE TABLE node(x INTEGER)")
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(PostgresState(url)):
            pass
    [error] = caught.value.exceptions
    assert "has tables of another program: name another schema" in str(error)
    assert ask("SELECT * FROM node") == []


async def test_a_database_of_a_newer_release_is_left_alone(url: str, ask: Ask) -> None:
    async with serving(PostgresState(url)):
        pass
    ask("UPDATE superlink_schema SET version = 99")
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(PostgresState(url)):
            pass
    [error] = caught.value.exceptions
    assert "written by a newer release (its schema has version 99" in str(error)


async def test_a_database_that_processes_of_an_older_release_use_is_not_migrated(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = (*schema.MIGRATIONS, "CREATE TABLE of_a_newer_release()")
    async with serving(PostgresState(url)):
        with monkeypatch.context() as patched:
            patched.setattr(schema, "MIGRATIONS", newer)
            with pytest.raises(ExceptionGroup) as caught:
                async with serving(PostgresState(url)):
                    pass
    [error] = caught.value.exceptions
    assert isinstance(error, CannotOpen)
    assert "in use by 1 of an older release" in str(error)
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    async with serving(PostgresState(url)):
        pass


async def test_a_process_whose_database_was_migrated_meanwhile_writes_nothing(
    url: str, ask: Ask
) -> None:
    async with serving(state := PostgresState(url)):
        # It was without a connection for long enough to be evicted.
        ask("DELETE FROM superlink_process; UPDATE superlink_schema SET version = 99")
        with pytest.raises(StateUnavailable, match=r"newer release \(its schema has version 99"):
            await state.create_run(Run())
        ask("UPDATE superlink_schema SET version = 1")
