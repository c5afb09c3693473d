"""Processes over one database: who is alive, what they are told of, and what time it is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
import trio
from builders import answer_to, task_ins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgresql import the_server
from state.postgres.conftest import BREAK_ALL, BREAK_SESSIONS, Ask
from state.sqlite.conftest import Program
from state.sqlite.test_totals import live
from stores import hear, serving

from examples import at_most
from superlink_trio.state import LimitReached, StateLimits, StateUnavailable
from superlink_trio.state.durable.engine import Transaction
from superlink_trio.state.durable.heartbeats import Heartbeat
from superlink_trio.state.postgres import PostgresState
from superlink_trio.state.postgres.steps import Steps
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import Task

_COUNTED = (
    ("SELECT nodes FROM superlink_total", "SELECT count(*) FROM node"),
    (
        "SELECT stored FROM superlink_total",
        """SELECT ((SELECT coalesce(sum(size + coalesce(answer_size, 0)), 0) FROM superlink_task)
            + (SELECT coalesce(sum(length(content)), 0) FROM superlink_payload)
            + (SELECT coalesce(sum(length(content)), 0) FROM superlink_fab))::bigint""",
    ),
)


async def test_a_killed_process_holds_nothing(url: str, start: Callable[..., Program]) -> None:
    async with serving(driver := PostgresState(url, grace=0.0)):
        run_id = await driver.create_run(Run())
        fleet = start("fleet.py", url, "hold")
        node_id = await fleet.told()
        task = task_ins(run_id, node_id, now=driver.now())
        await driver.store_task_ins([task])
        await fleet.told()
        assert await fleet.told() == task.task_id
        assert await driver.take_task_ins(node_id) is None
        fleet.kill()
        with trio.fail_after(20):
            await driver.await_task_ins(node_id)
        assert await driver.take_task_ins(node_id) == task


async def test_who_starts_gives_others_time_to_connect_to_a_server_that_was_restarted(
    url: str, ask: Ask
) -> None:
    async with serving(PostgresState(url)):
        ask("INSERT INTO superlink_process(socket) VALUES ('another')")
    another = "SELECT 1 FROM superlink_process WHERE socket = 'another'"
    async with serving(PostgresState(url, grace=1e6)):
        assert ask(another) == [(1,)], "not one for that it has been there for so long"
    async with serving(PostgresState(url, grace=0.0)):
        assert ask(another) == []


async def test_a_process_that_connects_again_in_time_keeps_what_it_holds(
    url: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(one := PostgresState(url)), serving(other := PostgresState(url)):
        run_id, node_id = await one.create_run(Run()), await other.create_node(600.0)
        task = task_ins(run_id, node_id, now=one.now())
        await one.store_task_ins([task])
        taken = await other.take_task_ins(node_id, "c")
        assert taken == task
        ask(BREAK_ALL)
        await other.confirm_task_ins(taken)
        with trio.fail_after(10):
            while ask("SELECT phase FROM superlink_task") != [(2,)]:
                await hear_if_possible(one, other)
    assert not [each for each in caplog.records if "took this one for dead" in each.getMessage()]


async def hear_if_possible(*states: PostgresState) -> None:
    """Let stores hear of each other; the first that finds its connection broken does not."""
    for state in states:
        with suppress(StateUnavailable):
            await hear(state)


@pytest.mark.parametrize("broken", [False, True])
async def test_a_process_that_was_taken_for_dead_gives_up_what_it_held(
    url: str, ask: Ask, caplog: pytest.LogCaptureFixture, broken: bool
) -> None:
    async with serving(one := PostgresState(url)):
        run_id, node_id = await one.create_run(Run()), await one.create_node(600.0)
        task = task_ins(run_id, node_id, now=one.now())
        await one.store_task_ins([task])
        assert await one.take_task_ins(node_id, "c") == task
        # As another process does.
        ask("DELETE FROM superlink_process; UPDATE superlink_task SET phase = 0, holder = NULL")
        if broken:
            ask(BREAK_ALL)
        with trio.fail_after(10):
            while await _taken(one, node_id) != task:
                pass
        assert "took this one for dead" in caplog.text


@pytest.mark.parametrize("undone", ["phase = 0, holder = NULL", "phase = 1, holder = {me}"])
async def test_what_a_crash_of_postgres_has_undone_is_done_again(
    url: str, ask: Ask, undone: str
) -> None:
    """That a task was taken, or handed over, is committed without waiting for the disk."""
    async with serving(one := PostgresState(url)):
        run_id, node_id = await one.create_run(Run()), await one.create_node(600.0)
        simulated = await one.create_simulated_node()
        task = task_ins(run_id, node_id, now=one.now())
        await one.store_task_ins([task])
        assert await one.take_task_ins(node_id, "c") == task
        await one.confirm_task_ins(task)
        assert await one.take_task_ins(node_id, "c") is None
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.await_task_ins, node_id)
                await hear(one)
                [(me,)] = ask("SELECT process_id FROM superlink_process")
                ask(f"UPDATE superlink_task SET {undone.format(me=me)}")
                ask("TRUNCATE superlink_present")
                ask(BREAK_ALL)
        assert await one.take_task_ins(node_id, "c") == task
        assert simulated in await one.online_nodes(run_id)


async def test_a_process_that_commits_nothing_is_taken_for_dead(url: str, ask: Ask) -> None:
    async with serving(one := PostgresState(url, stalled=0.0)):
        run_id, node_id = await one.create_run(Run()), await one.create_node(600.0)
        there = _add_process(ask, "pg_advisory_lock")
        await _look_at_others(one)
        assert ask(there) == [(1,)], "nothing was written for it that it could have read"
        await one.store_task_ins([task_ins(run_id, node_id, now=one.now())])
        await _look_at_others(one)
        assert ask(there) == []
        await one.write(lambda tx: tx.sweep())
        assert ask("SELECT * FROM superlink_news") == []


async def test_two_that_look_at_once_whether_a_process_has_ended_find_the_same(
    url: str, ask: Ask
) -> None:
    async with serving(one := PostgresState(url, grace=0.0)):
        # What another process that just looks has for a moment.
        there = _add_process(ask, "pg_advisory_lock_shared")
        await _look_at_others(one)
        assert ask(there) == []


def _add_process(ask: Ask, lock: str) -> str:
    """Register a process, and lock what it is alive by; give a query that finds it."""
    [(number,)] = ask(
        "INSERT INTO superlink_process(socket, alive_by) VALUES ('another', 77777)"
        " RETURNING process_id"
    )
    ask(f"INSERT INTO superlink_present VALUES ({number})")
    ask(f"SELECT {lock}(oid::int, 77777) FROM pg_namespace WHERE nspname = current_schema()")
    return f"SELECT 1 FROM superlink_process WHERE process_id = {number}"


async def _look_at_others(state: PostgresState) -> None:
    await state.write(lambda tx: tx.evict_ended())


async def test_a_row_that_is_there_for_good_fails_its_own_step_at_once(url: str) -> None:
    async with serving(one := PostgresState(url)):
        run_id = await one.create_run(Run())
        insert = "INSERT INTO run(run_id) VALUES (?)"
        refused: list[Exception] = []

        async def insert_again() -> None:
            try:
                await one.write(lambda tx: as_steps(tx).execute(insert, run_id))
            except psycopg.errors.UniqueViolation as error:
                refused.append(error)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(insert_again)
                nursery.start_soon(one.create_node, 30.0)
        assert len(refused) == 1


async def test_the_last_room_is_filled_by_one_commit_of_each_process_at_most(url: str) -> None:
    limits = StateLimits(nodes=3)
    one, other = (PostgresState(url, limits=limits) for _ in range(2))
    both_have_looked = threading.Barrier(2)

    def fill(tx: Transaction) -> None:
        while True:
            try:
                tx.create_node(Heartbeat(tx.now + 600), b"")
            except LimitReached:
                both_have_looked.wait(10)
                return

    async with serving(one), serving(other):
        run_id = await one.create_run(Run())
        await one.create_node(600.0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.write, fill)
            nursery.start_soon(other.write, fill)
        assert len(await one.online_nodes(run_id)) == 1 + 2 * 2
        for state in (one, other):
            with pytest.raises(LimitReached):
                await state.create_node(600.0)


def as_steps(tx: Transaction) -> Steps:
    assert isinstance(tx, Steps)
    return tx


async def _taken(state: PostgresState, node_id: int) -> Task | None:
    with suppress(StateUnavailable):
        await hear(state)
        return await state.take_task_ins(node_id, "d")
    return None


async def test_what_was_said_while_nobody_listened_is_heard_all_the_same(
    url: str, ask: Ask
) -> None:
    async with serving(driver := PostgresState(url)), serving(fleet := PostgresState(url)):
        run_id, node_id = await driver.create_run(Run()), await fleet.create_node(600.0)
        assert await fleet.take_task_ins(node_id, "c") is None
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fleet.await_task_ins, node_id)
                await hear(driver, fleet)
                ask(BREAK_SESSIONS)
                await driver.store_task_ins([task_ins(run_id, node_id, now=driver.now())])
        assert await fleet.take_task_ins(node_id, "c") is not None


async def test_it_is_the_time_of_the_database(
    url: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time()
    async with serving(one := PostgresState(url)):
        run_id, node_id = await one.create_run(Run()), await one.create_node(600.0)
        monkeypatch.setattr(time, "time", lambda: right - 86_400.0)
        async with serving(other := PostgresState(url)):
            [(there,)] = ask("SELECT extract(epoch FROM clock_timestamp())::float8")
            assert abs(other.now() - there) < 5
        assert await one.online_nodes(run_id) == [node_id], "it started with the right time, too"


async def test_a_text_may_have_a_character_that_postgres_cannot_store(url: str) -> None:
    async with serving(state := PostgresState(url)):
        run_id, node_id = await state.create_run(Run(fab_id="a\0b")), await state.create_node(9.0)
        await state.store_task_ins([task_ins(run_id, node_id, now=state.now(), group_id="g\0")])
        task = await state.take_task_ins(node_id, "c")
        assert task is not None
        assert task.group_id == "g\N{SYMBOL FOR NULL}"
        await state.store_task_res(answer_to(task, now=state.now()))


@settings(
    max_examples=at_most(5),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(choices=st.lists(st.integers(0, 1000), min_size=5, max_size=30))
async def test_the_totals_are_right_after_any_history(choices: list[int]) -> None:
    url = the_server().new_schema()
    async with serving(state := PostgresState(url)):
        await live(state, choices)
        with psycopg.connect(url) as connection:
            for counted, there in _COUNTED:
                assert (
                    connection.execute(counted).fetchall() == connection.execute(there).fetchall()
                )
