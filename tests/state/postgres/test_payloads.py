"""Payloads of many megabytes, which go to PostgreSQL and come back piece by piece."""

from __future__ import annotations

import random

import trio
from builders import answer_to, task_ins
from state.postgres.conftest import Ask
from stores import serving

from superlink_trio.state.postgres import PostgresState
from superlink_trio.wire.runs import Run

MiB = 1024 * 1024


async def test_large_payloads_that_two_processes_push_at_once_are_kept_once(
    url: str, ask: Ask
) -> None:
    async with serving(one := PostgresState(url)), serving(other := PostgresState(url)):
        run_id = await one.create_run(Run())
        model = random.Random(1).randbytes(17 * MiB + 1)
        tasks = [
            task_ins(run_id, await one.create_node(600.0), now=one.now(), content=model)
            for _ in range(2)
        ]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.store_task_ins, tasks[:1])
            nursery.start_soon(other.store_task_ins, tasks[1:])
        assert ask("SELECT octet_length(content) FROM superlink_payload") == [(len(model),)]
        for state, task in zip((other, one), tasks, strict=True):
            assert await state.take_task_ins(task.consumer, "c") == task
            await state.confirm_task_ins(task)
        answer = answer_to(tasks[0], now=one.now(), content=model[::-1])
        await one.store_task_res(answer)
        assert await other.take_task_res([tasks[0].task_id], 100 * MiB) == [answer]
        await other.confirm_task_res([answer])
        assert (await other.census()).stored_bytes < 2 * len(model) + MiB
