"""Through a pool that lends connections for one transaction each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
from builders import answer_to, task_ins
from postgresql import Server
from state.postgres.conftest import BREAK_SESSIONS, Ask
from state.postgres.pool import pool
from state.postgres.test_processes import as_steps, hear_if_possible
from stores import serving

from superlink_trio.state import CannotOpen
from superlink_trio.state.postgres import PostgresState
from superlink_trio.state.postgres import server as servers
from superlink_trio.wire.runs import Run

MiB = 1024 * 1024


@pytest.fixture
def pooled(server: Server, ask: Ask) -> Iterator[str]:
    [(schema,)] = ask("SELECT current_schema()")
    with pool(server, schema) as url:
        yield url


async def test_processes_work_together_through_a_pool(pooled: str, ask: Ask) -> None:
    url = pooled.format("postgres")
    async with serving(driver := PostgresState(url)), serving(fleet := PostgresState(url)):
        run_id, node_id = await driver.create_run(Run()), await fleet.create_node(600.0)
        # More often than a statement is sent before psycopg prepares it.
        for turn in range(8):
            task = task_ins(run_id, node_id, now=driver.now(), content=bytes(100_000 + turn))
            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    assert await fleet.take_task_ins(node_id, "c") is None
                    nursery.start_soon(fleet.await_task_ins, node_id)
                    await driver.store_task_ins([task])
                assert await fleet.take_task_ins(node_id, "c") == task
                await fleet.confirm_task_ins(task)
                answer = answer_to(task, now=fleet.now())
                await fleet.store_task_res(answer)
                await driver.await_task_res([task.task_id], MiB)
            assert await driver.take_task_res([task.task_id], MiB) == [answer]
            await driver.confirm_task_res([answer])
        held = task_ins(run_id, node_id, now=driver.now())
        await driver.store_task_ins([held])
        assert await fleet.take_task_ins(node_id, "c") == held
        # Each has its own, whatever the pool does with the others.
        assert len(ask(BREAK_SESSIONS)) == 2
        await fleet.confirm_task_ins(held)
        with trio.fail_after(10):
            while ask("SELECT phase FROM superlink_task WHERE phase < 3") != [(2,)]:
                await hear_if_possible(driver, fleet)


async def test_nobody_waits_for_ever_for_a_lock(pooled: str, url: str) -> None:
    for each in (pooled.format("postgres"), url):
        async with serving(state := PostgresState(each)):
            limit = await state.write(lambda tx: as_steps(tx).value("SHOW lock_timeout"))
            assert limit == "5s"


async def test_a_direct_way_to_another_database_is_refused(pooled: str) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with serving(PostgresState(pooled.format("template1"))):
            pass
    [error] = caught.value.exceptions
    assert isinstance(error, CannotOpen)
    assert "are not the same: direct= names the server" in str(error)


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("postgresql://u:p@pool:6432/n?direct=db:5433", ("n (pool:6432)", "n (db:5433)")),
        ("postgresql://u:p@pool/n?direct=db&sslmode=require", ("n (pool)", "n (db)")),
        ("postgresql:///n?host=/pool&direct=%2Fpg%3A5433", ("n (/pool)", "n (/pg:5433)")),
        ("postgresql:///n?host=/pool&direct=/pg", ("n (/pool)", "n (/pg)")),
        ("postgresql://pool/n?direct=a:1,[::1]:2", ("n (pool)", "n (a,::1:1,2)")),
        ("postgresql://u:p@db/n", ("n (db)", "n (db)")),
    ],
)
def test_the_url_may_say_where_postgres_itself_is(url: str, names: tuple[str, str]) -> None:
    assert (servers.Server(url).name, servers.Server(url, direct=True).name) == names


@pytest.mark.parametrize("direct", ["", "u:p@db", "db/name", "[::1", "a,", "db:x"])
def test_a_place_that_is_none_is_refused(direct: str) -> None:
    with pytest.raises(CannotOpen, match="write direct=HOST:PORT") as caught:
        servers.Server(f"postgresql://pool/n?direct={direct}")
    assert "u:p" not in str(caught.value)
