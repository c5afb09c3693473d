"""What a file keeps of Flower 1.23 and later when its process has ended, one way or another."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from builders import EPOCH
from peering.parcels import Parcel, parcel
from state.sqlite.older import TO_FOURTH, TO_THIRD
from stores import settle
from trio.testing import MockClock

from superlink_trio.state import CannotOpen, LimitReached, StateLimits
from superlink_trio.state.messages import SERVER, DurableMessages, NewRun
from superlink_trio.state.messages.interface import CLAIM_TIMEOUT, TASK_TIMEOUT
from superlink_trio.state.sqlite.backup import back_up
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope, Outcome, RunRecord, RunStatus
from superlink_trio.wire.runs import Fab, Run

Serving: TypeAlias = Callable[..., AbstractAsyncContextManager[DurableMessages]]

FAB = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
NEW_RUN = NewRun(
    fab=FAB, fab_id="me/app", fab_version="1.0.0", override_config={"lr": 0.1, "key": b"\0\xff"}
)


@pytest.fixture
def messages(serving: Any, file: Path) -> Serving:
    """Serve messages on `file` inside a block."""

    @asynccontextmanager
    async def serve(path: Path = file, **options: Any) -> AsyncIterator[DurableMessages]:
        async with serving(path, **options) as state, trio.open_nursery() as nursery:
            messages, stopping = DurableMessages(state), trio.Event()
            await nursery.start(
                lambda task_status: messages.serve(stopping=stopping, task_status=task_status)
            )
            yield messages
            stopping.set()

    return serve


@attrs.frozen
class Running:
    """A run that is running, and a node."""

    run: RunRecord
    token: str
    node_id: int


async def running(messages: DurableMessages) -> Running:
    await messages.create_run(NEW_RUN)
    claim = await messages.claim_run()
    assert claim is not None
    node_id = await messages.register_node(b"key", name="ward 7")
    await messages.activate_node(b"key", 30.0)
    return Running(await messages.begin_run(claim.token), claim.token, node_id)


async def send(messages: DurableMessages, run_id: int, source: int, sent: Parcel) -> str:
    pushed = await messages.push(run_id, source, [sent.envelope])
    for object_id in pushed.missing:
        await messages.put_object(run_id, source, object_id, sent.objects[object_id])
    return pushed.message_ids[0]


async def read(
    messages: DurableMessages, run_id: int, reader: int, envelope: Envelope | None
) -> bytes:
    """Pull all objects of a message and confirm it; give what it says."""
    assert envelope is not None
    contents = [
        await messages.get_object(run_id, reader, child.object_id)
        for child in envelope.tree.children
    ]
    assert await messages.get_object(run_id, reader, envelope.message_id) is not None
    await messages.confirm(run_id, reader, envelope.message_id)
    return b"".join((content or b"").partition(b"\0")[2] for content in contents)


def value(file: Path, query: str) -> Any:
    with closing(sqlite3.connect(file)) as connection:
        (found,) = connection.execute(query).fetchone()
        return found


# Restarts


async def test_nodes_runs_and_tokens_outlive_their_process(
    messages: Serving, mock_clock: MockClock
) -> None:
    async with messages() as before:
        one = await running(before)
        await before.register_node(b"its own", itself=True)
        waiting = await before.create_run(NEW_RUN)
        simulation = pb.SimulationConfig(num_supernodes=3, client_resources_num_gpus=0.5)
        over = await before.create_run(attrs.evolve(NEW_RUN, series_id=7, simulation=simulation))
        await before.finish_run(over.run_id, Outcome.STOPPED, "enough")
        await before.log(one.run.run_id, "one\n")
        logged = await before.logs(one.run.run_id, 0.0)
        nodes, runs = {*await before.nodes()}, await before.runs(10)
    async with messages() as after:
        assert {*await after.nodes()} == nodes
        assert await after.online_nodes() == [one.node_id]
        assert await after.admit_node(one.node_id, b"key", readmit=False)
        assert await after.runs(10) == runs
        assert await after.run_of_token(one.token) == one.run
        assert await after.task_heartbeat(one.token)
        assert await after.fab(FAB.hash) == FAB
        assert await after.logs(one.run.run_id, 0.0) == logged
        await after.log(one.run.run_id, "two\n")
        assert (await after.logs(one.run.run_id, logged.latest)).text == "two\n"
        claim = await after.claim_run()
        assert claim is not None
        assert claim.run.run_id == waiting.run_id


async def test_a_node_that_was_unregistered_stays_so(messages: Serving) -> None:
    async with messages() as before:
        node_id = await before.register_node(b"key")
        await before.unregister_node(node_id)
    async with messages() as after:
        assert not await after.admit_node(node_id, b"key", readmit=True)


async def test_messages_go_on_where_they_were(messages: Serving) -> None:
    async with messages() as state:
        one = await running(state)
        run_id, node_id = one.run.run_id, one.node_id
        first = await send(state, run_id, SERVER, parcel(run_id, to=node_id, parts=(b"1",)))
        second = parcel(run_id, to=node_id, parts=(b"2", b"3"))
        pushed = await state.push(run_id, SERVER, [second.envelope])
        half, *rest = pushed.missing
        await state.put_object(run_id, SERVER, half, second.objects[half])
    async with messages() as state:
        again = await state.push(run_id, SERVER, [second.envelope])
        assert (again.message_ids, sorted(again.missing)) == ([second.message_id], sorted(rest))
        for object_id in rest:
            await state.put_object(run_id, SERVER, object_id, second.objects[object_id])
        taken = await state.take(node_id)
        assert taken is not None
        assert taken.message_id == first
    async with messages() as state:
        assert await read(state, run_id, node_id, await state.take(node_id)) == b"1"
        assert await read(state, run_id, node_id, await state.take(node_id)) == b"23"
        reply = parcel(run_id, source=node_id, to=SERVER, reply_to=first, parts=(b"r",))
        await send(state, run_id, node_id, reply)
    async with messages() as state:
        await state.await_replies(run_id, [first])
        assert len(await state.take_replies(run_id, [first])) == 1
    async with messages() as state:
        [given] = await state.take_replies(run_id, [first, second.message_id])
        assert await read(state, run_id, SERVER, given) == b"r"


async def test_everybody_has_time_to_come_back(messages: Serving, mock_clock: MockClock) -> None:
    async with messages() as before:
        one = await running(before)
        left = await before.register_node(b"left")
        await before.activate_node(b"left", 30.0)
        await before.deactivate_node(left)
    mock_clock.jump(3000)
    async with messages() as after:
        assert await after.online_nodes() == [one.node_id]
        mock_clock.jump(TASK_TIMEOUT - 6)
        await settle(after)
        assert await after.run_of_token(one.token) == one.run
        assert await after.online_nodes() == [one.node_id]
        for _ in range(5):
            mock_clock.jump(5)
            await settle(after)
        assert await after.online_nodes() == []
        ended = await after.run(one.run.run_id)
        assert ended is not None
        assert (ended.status, ended.outcome) == (RunStatus.FINISHED, Outcome.FAILED)


async def test_a_run_that_was_claimed_and_not_begun_can_be_claimed(
    messages: Serving, mock_clock: MockClock
) -> None:
    async with messages() as before:
        created = await before.create_run(NEW_RUN)
        assert await before.claim_run() is not None
    async with messages() as after:
        assert await after.claim_run() is None
        for _ in range(3):
            mock_clock.jump(CLAIM_TIMEOUT / 2 + 1)
            await settle(after)
        claim = await after.claim_run()
        assert claim is not None
        assert claim.run.run_id == created.run_id


async def test_the_messages_of_a_run_that_ended_are_deleted_after_a_restart_too(
    messages: Serving, file: Path
) -> None:
    async with messages() as before:
        one = await running(before)
        for number in range(50):
            sent = parcel(one.run.run_id, to=one.node_id, parts=(b"%d" % number,))
            await send(before, one.run.run_id, SERVER, sent)
    with closing(sqlite3.connect(file)) as connection, connection:
        # As it is when its process was killed just after the run's end.
        connection.execute("UPDATE superlink_app_run SET status = 'finished', token = NULL")
        connection.execute("UPDATE superlink_message SET phase = 4")
    async with messages() as after:
        await settle(after)
        for table in ("message", "object", "tree", "part"):
            assert value(file, f"SELECT count(*) FROM superlink_{table}") == 0
        assert await after.take(one.node_id) is None


async def test_a_killed_process_loses_nothing_that_it_acknowledged(
    messages: Serving, file: Path, start: Callable[..., Any]
) -> None:
    program = start("messages.py", file)
    names = await program.told()
    replied = [(await program.told())["replied"] for _ in range(20)]
    program.kill()
    async with messages() as state:
        run = await state.run_of_token(names["token"])
        assert run is not None
        assert run.run_id == names["run"]
        assert await state.admit_node(names["node"], b"key", readmit=False)
        replies = await state.take_replies(run.run_id, replied)
        assert [reply.message.metadata.reply_to_message_id for reply in replies] == replied
        said = [await read(state, run.run_id, SERVER, reply) for reply in replies]
        assert said == [message_id.encode() for message_id in replied]
        assert (await state.logs(run.run_id, 0.0)).text.startswith("".join(replied))


# The file


@pytest.mark.parametrize("statements", [TO_FOURTH, TO_THIRD])
async def test_a_file_of_a_release_before_is_brought_up_to_date(
    messages: Serving, serving: Any, file: Path, statements: Sequence[str]
) -> None:
    async with serving() as state:
        run_id = await state.create_run(Run(fab_id="old"))
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    async with messages() as state:
        await running(state)
    async with serving() as state:
        assert (await state.get_run(run_id)).fab_id == "old"


async def test_a_copy_can_be_served(messages: Serving, file: Path) -> None:
    copy = file.with_name("copy.db")
    async with messages() as state:
        one = await running(state)
        await send(state, one.run.run_id, SERVER, parcel(one.run.run_id, to=one.node_id))
        assert await state.take(one.node_id) is not None
        back_up(str(file), str(copy))
    async with messages(copy) as state:
        taken = await state.take(one.node_id)
        assert await read(state, one.run.run_id, one.node_id, taken) == b"weights"


async def test_one_process_at_a_time_serves_a_file(
    messages: Serving, serving: Any, file: Path
) -> None:
    async with messages() as first, serving() as beside:
        with pytest.raises(CannotOpen, match=r"another process .* leave --port out"):
            await DurableMessages(beside).serve(stopping=trio.Event())
        assert await beside.create_run(Run())
        run = await first.create_run(NEW_RUN)
        assert await first.run(run.run_id) == run


async def test_who_was_taken_for_dead_serves_a_file_alone_still(
    messages: Serving, serving: Any, file: Path
) -> None:
    async with messages() as first, serving() as beside:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("DELETE FROM superlink_process")
        await first.create_run(NEW_RUN)
        with pytest.raises(CannotOpen, match="another process"):
            await DurableMessages(beside).serve(stopping=trio.Event())


async def test_a_token_cannot_be_read_from_the_file(messages: Serving, file: Path) -> None:
    async with messages() as state:
        one = await running(state)
    assert one.token.encode() not in file.read_bytes()


async def test_heartbeats_are_written_behind(
    messages: Serving, file: Path, mock_clock: MockClock
) -> None:
    until = "SELECT online_until FROM superlink_supernode"
    async with messages() as state:
        one = await running(state)
        before = value(file, until)
        mock_clock.jump(20)
        assert await state.heartbeat(one.node_id, 60.0)
        assert await state.online_nodes() == [one.node_id]
        await settle(state)
        assert value(file, until) == before
        mock_clock.jump(0.5)
        await settle(state)
        assert value(file, until) == EPOCH + 20 + 120


async def test_heartbeats_that_could_not_be_written_are_written_later(
    messages: Serving, file: Path, mock_clock: MockClock
) -> None:
    async with messages() as state:
        one = await running(state)
        elsewhere = file.rename(file.with_name("elsewhere"))
        await state.heartbeat(one.node_id, 60.0)
        for _ in range(3):
            await settle(state)
            mock_clock.jump(0.5)
        elsewhere.rename(file)
        for _ in range(3):
            await settle(state)
            mock_clock.jump(0.5)
        until = value(file, "SELECT online_until FROM superlink_supernode")
        assert until == pytest.approx(EPOCH + 120, abs=0.1)


# Commits and room


async def test_what_is_pushed_at_the_same_time_shares_commits(
    messages: Serving, file: Path
) -> None:
    async with messages() as state:
        one = await running(state)
        run_id = one.run.run_id
        sent = [parcel(run_id, to=one.node_id, parts=(b"%d" % n, b"both")) for n in range(50)]
        before = state._state.commits
        pushed = await state.push(run_id, SERVER, [each.envelope for each in sent])
        assert state._state.commits == before + 1
        assert len(pushed.missing) == 101
        objects = {name: content for each in sent for name, content in each.objects.items()}
        async with trio.open_nursery() as nursery:
            for object_id in pushed.missing:
                nursery.start_soon(state.put_object, run_id, SERVER, object_id, objects[object_id])
        assert state._state.commits <= before + 4
        assert value(file, "SELECT count(*) FROM superlink_message WHERE phase = 1") == 50


async def test_equal_trees_are_stored_once(messages: Serving, file: Path) -> None:
    async with messages() as state:
        one = await running(state)
        run_id = one.run.run_id
        nodes = [await state.register_node(b"%d" % number) for number in range(10)]
        before = value(file, "SELECT stored FROM superlink_total")
        sent = [parcel(run_id, to=node_id, parts=(bytes(10_000), b"x")) for node_id in nodes]
        for each in sent:
            await send(state, run_id, SERVER, each)
        assert value(file, "SELECT count(*) FROM superlink_tree") == 1
        assert value(file, "SELECT count(*) FROM superlink_part") == 2
        size = sum(map(len, {k: v for each in sent for k, v in each.objects.items()}.values()))
        assert value(file, "SELECT stored FROM superlink_total") == before + size
        for node_id, each in zip(nodes, sent, strict=True):
            said = await read(state, run_id, node_id, await state.take(node_id))
            assert said == bytes(10_000) + b"x"
            assert each.message_id
        assert value(file, "SELECT stored FROM superlink_total") == before
        assert value(file, "SELECT count(*) FROM superlink_object") == 0


async def test_a_bundle_goes_with_the_last_run_that_has_it(messages: Serving, file: Path) -> None:
    async with messages() as state:
        earlier, later = [await state.create_run(NEW_RUN) for _ in range(2)]
        # A run of Flower 1.8 to 1.11 may ask for it at any time.
        kept = Fab(hash=hashlib.sha256(b"kept").hexdigest(), content=b"kept")
        await state._state.create_run(Run(fab_hash=kept.hash), kept)
        shared = await state.create_run(attrs.evolve(NEW_RUN, fab=kept))
        for run in (earlier, shared):
            await state.finish_run(run.run_id, Outcome.STOPPED)
        assert await state.fab(FAB.hash) == FAB
        assert await state.fab(kept.hash) == kept
        assert value(file, "SELECT stored FROM superlink_total") == len(b"fab" + b"kept")
        await state.finish_run(later.run_id, Outcome.STOPPED)
        assert await state.fab(FAB.hash) is None
        assert value(file, "SELECT stored FROM superlink_total") == len(b"kept")


async def test_a_bundle_needs_room_too(messages: Serving) -> None:
    async with messages(limits=StateLimits(stored_size=1000)) as state:
        content = bytes(600)
        fab = Fab(hash=hashlib.sha256(content).hexdigest(), content=content)
        with pytest.raises(LimitReached):
            await state.create_run(attrs.evolve(NEW_RUN, fab=fab))
        assert await state.runs(10) == []


async def test_messages_of_both_generations_share_their_room(messages: Serving, file: Path) -> None:
    async with messages(limits=StateLimits(stored_size=40_000)) as state:
        one = await running(state)
        await state._state.create_run(Run(fab_hash="h"), Fab(hash="h", content=bytes(15_000)))
        sent = parcel(one.run.run_id, to=one.node_id, parts=(bytes(6000),))
        with pytest.raises(LimitReached):
            await send(state, one.run.run_id, SERVER, sent)
