from __future__ import annotations

import trio

from superlink_trio.logs import context


def test_fields_are_there_inside_and_gone_after() -> None:
    token = context.enter({"call_id": "1"})
    context.note(node_id=7)
    assert context.current() == {"call_id": "1", "node_id": 7}
    context.leave(token)
    assert context.current() == {}


def test_what_nobody_asked_for_is_not_kept() -> None:
    context.note(node_id=7)
    assert context.current() == {}


def test_the_inner_of_two_contexts_counts() -> None:
    outer = context.enter({"call_id": "1"})
    inner = context.enter({"call_id": "2"})
    context.note(node_id=7)
    context.leave(inner)
    assert context.current() == {"call_id": "1"}
    context.leave(outer)


async def test_tasks_have_contexts_of_their_own() -> None:
    seen: list[dict[str, object]] = []

    async def call(number: int) -> None:
        token = context.enter({"call_id": number})
        await trio.testing.wait_all_tasks_blocked()
        context.note(node_id=number)
        seen.append(context.current())
        context.leave(token)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, 1)
        nursery.start_soon(call, 2)
    assert sorted(seen, key=str) == [{"call_id": n, "node_id": n} for n in (1, 2)]
