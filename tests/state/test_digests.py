"""Payloads are told apart by their SHA-256, and nobody waits while they are read for it."""

from __future__ import annotations

import hashlib

import trio
from builders import task_ins

from superlink_trio.state.payloads import digests_of
from superlink_trio.wire.tasks import TaskError

KiB = 1024


async def test_errors_and_small_payloads_have_none() -> None:
    small, large = task_ins(1, 1, content=b"s" * KiB), task_ins(1, 1, content=b"l" * (KiB + 1))
    error = task_ins(1, 1, content=TaskError(1, "reason"))
    assert await digests_of([small, error, large], above=KiB) == [
        None,
        None,
        hashlib.sha256(b"l" * (KiB + 1)).digest(),
    ]


async def test_many_payloads_are_read_in_a_thread() -> None:
    content = bytes(200 * KiB)
    tasks = [task_ins(1, node_id, content=content) for node_id in range(100)]
    threads = trio.to_thread.current_default_thread_limiter()
    busy = False
    done = trio.Event()

    async def digest() -> None:
        assert await digests_of(tasks) == [hashlib.sha256(content).digest()] * 100
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(digest)
        while not done.is_set():
            busy = busy or threads.borrowed_tokens > 0
            await trio.lowlevel.checkpoint()
    assert busy
