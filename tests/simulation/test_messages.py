"""The engine over stores of messages: nodes of today's Flower, and a backend that says it back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from builders import EPOCH
from peering.parcels import Parcel, bundle, parcel
from state.messages.lab import read, send
from stores import STORES, settle
from trio.testing import MockClock

from superlink_trio.simulation.backend import (
    Backend,
    BackendDied,
    Job,
    Outcome,
    RunOver,
    WorkerDied,
)
from superlink_trio.simulation.engine import Simulation
from superlink_trio.simulation.messages import MessageSource
from superlink_trio.state import StateLimits
from superlink_trio.state.messages import (
    SERVER,
    Envelope,
    MemoryMessages,
    MessageState,
    NewRun,
    messages_beside,
)
from superlink_trio.wire.messages import Outcome as RunOutcome
from superlink_trio.wire.objects import make_object, object_id_of, pack, unpack
from superlink_trio.wire.runs import Fab
from superlink_trio.wire.tasks import TaskError

PROJECT = "[tool.flwr.app.config]\nrounds = 3\nlr = 0.5\n"


@attrs.define(eq=False)
class Echo(Backend):
    """Says back what it is told, and counts in the state; some words make it fail."""

    jobs: list[Job] = attrs.field(factory=list)
    hold: trio.Event = attrs.field(factory=trio.Event)
    ttl: float = 60.0
    padding: int = 0
    """Bytes that a reply is longer."""
    death: trio.Event = attrs.field(factory=trio.Event)

    @property
    def capacity(self) -> int:
        return 2

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backend]:
        self.death = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._live)
            yield self
            nursery.cancel_scope.cancel()

    async def _live(self) -> None:
        await self.death.wait()
        raise BackendDied("the test killed it")

    async def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        assert isinstance(job.content, bytes)
        *_, word = unpack(job.content).values()
        word = word.partition(b"\0")[2]
        match word:
            case b"hold":
                await self.hold.wait()
            case b"fail":
                error = TaskError(2, "ValueError:<'no'>")
                return Outcome(content=error, ttl=self.ttl, state=job.state, fault="ValueError")
            case b"crash":
                raise WorkerDied("signal 9")
            case b"over":
                raise RunOver
            case b"bomb":
                self.death.set()
                await trio.sleep_forever()
        padding = b"%d" % job.node.partition_id * self.padding
        said = make_object("RecordDict", word + job.state + padding)
        content = pack({object_id_of(said): said if word != b"nonsense" else b"nonsense"})
        return Outcome(content=content, ttl=self.ttl, state=job.state + b".")


@attrs.define(eq=False)
class Lab:
    state: MessageState
    backend: Echo = attrs.field(factory=Echo)
    simulation: Simulation = attrs.field(init=False)
    asked: Counter[str] = attrs.field(factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.simulation = Simulation(
            MessageSource(self.state),
            self.backend.open,
            num_nodes=3,
            backend_name="echo",
            context_limit=1_000_000,
        )

    @asynccontextmanager
    async def life(self) -> AsyncIterator[Sequence[int]]:
        """One life of the simulation; it is asked to stop at the end of the block."""
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: self.simulation.serve(
                    stopping=stopping, task_status=task_status
                )
            )
            yield sorted(await self.state.online_nodes())
            stopping.set()

    async def dies(self) -> None:
        """One life that the death of its backend ends."""
        with pytest.raises(BackendDied):
            await self.simulation.serve(stopping=trio.Event())

    async def run(self) -> int:
        fab = bundle(PROJECT)
        new = NewRun(
            fab=Fab(hash="fab", content=fab.content),
            fab_id="me/app",
            fab_version="1",
            override_config={"lr": 0.1},
        )
        await self.state.create_run(new)
        claim = await self.state.claim_run()
        assert claim is not None
        return (await self.state.begin_run(claim.token)).run_id

    async def ask(self, run_id: int, node_id: int, word: bytes = b"x", **details: object) -> Parcel:
        now = self.state.now() + 1e-3 * self.asked.total()  # no two are the same
        self.asked["all"] += 1
        details = {"created_at": now, **details}
        sent = parcel(run_id, to=node_id, parts=(word,), **details)  # type: ignore[arg-type]
        await send(self.state, run_id, SERVER, sent)
        return sent

    async def at_work(self, count: int) -> None:
        """Wait until so many jobs were started: what reads a bundle is a thread."""
        with trio.fail_after(5):
            while len(self.backend.jobs) < count:
                await trio.to_thread.run_sync(time.sleep, 0.001)
        await settle(self.state)

    async def reply(self, asked: Parcel) -> Envelope:
        """Wait for a reply."""
        run_id = asked.envelope.message.metadata.run_id
        with trio.fail_after(5):
            await self.state.await_replies(run_id, [asked.message_id])
        [reply] = await self.state.take_replies(run_id, [asked.message_id])
        return reply

    async def said(self, asked: Parcel) -> bytes:
        """Wait for a reply; give what it says."""
        reply = await self.reply(asked)
        assert reply.message.HasField("content"), reply.message.error
        return await read(self.state, reply.message.metadata.run_id, SERVER, reply)


@pytest.fixture(params=["memory", "sqlite"])
async def state(
    request: pytest.FixtureRequest, tmp_path: Path, mock_clock: MockClock
) -> AsyncIterator[MessageState]:
    state = STORES[request.param](lambda: EPOCH + trio.current_time(), tmp_path)
    messages = messages_beside(state)
    async with trio.open_nursery() as nursery:
        stopping = trio.Event()
        for served in (state, messages):
            serve: Callable[..., object] = served.serve
            await nursery.start(
                lambda task_status, serve=serve: serve(stopping=stopping, task_status=task_status)
            )
        yield messages
        stopping.set()


@pytest.fixture
def lab(state: MessageState) -> Lab:
    return Lab(state)


# Nodes


async def test_nodes_are_online_with_a_partition_each_and_leave_at_the_stop(
    lab: Lab, mock_clock: MockClock
) -> None:
    async with lab.life() as nodes:
        assert len(nodes) == 3
        for _ in range(8):
            mock_clock.jump(20)
            await settle(lab.state)
        assert sorted(await lab.state.online_nodes()) == nodes
        names = {node.node_id: node.name for node in await lab.state.nodes()}
        run_id = await lab.run()
        for node_id in nodes:
            await lab.said(await lab.ask(run_id, node_id, created_at=lab.state.now()))
    assert await lab.state.nodes() == ()
    told = {job.node.node_id: f"simulated {job.node.partition_id}" for job in lab.backend.jobs}
    assert told == names
    assert {job.node.num_partitions for job in lab.backend.jobs} == {3}


async def test_nodes_that_a_killed_process_has_left_are_taken_over(lab: Lab) -> None:
    left = [await MessageSource(lab.state).create_node(one) for one in range(3)]
    async with lab.life() as nodes:
        assert nodes == sorted(left)


async def test_a_node_that_is_unregistered_is_left_alone(lab: Lab) -> None:
    async with lab.life() as nodes:
        assert await lab.state.unregister_node(nodes[0])
        asked = await lab.ask(await lab.run(), nodes[1])
        assert await lab.said(asked) == b"x"


# Messages


async def test_a_message_is_answered_as_its_node_would(lab: Lab) -> None:
    async with lab.life() as nodes:
        run_id = await lab.run()
        asked = await lab.ask(run_id, nodes[0], b"weights", message_type="evaluate")
        reply = await lab.reply(asked)
        meta = reply.message.metadata
        assert (meta.src_node_id, meta.dst_node_id) == (nodes[0], SERVER)
        assert (meta.run_id, meta.reply_to_message_id) == (run_id, asked.message_id)
        assert (meta.message_type, meta.ttl) == ("evaluate", 60.0)
        assert await read(lab.state, run_id, SERVER, reply) == b"weights"
    [job] = lab.backend.jobs
    assert (job.task.task_type, job.task.producer) == ("evaluate", SERVER)
    assert job.run_config == {"rounds": 3, "lr": 0.1}


async def test_a_node_remembers_what_it_did_in_a_run_and_no_other(lab: Lab) -> None:
    async with lab.life() as [node_id, *_]:
        first, second = await lab.run(), await lab.run()
        said = [await lab.said(await lab.ask(run, node_id)) for run in (first, second, first)]
        assert said == [b"x", b"x", b"x."]
        lab.simulation.forget(first)
        assert await lab.said(await lab.ask(first, node_id)) == b"x"


@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [
        (b"fail", 2, "ValueError:<'no'>"),
        (b"crash", 0, "signal 9"),
        (b"nonsense", 0, "The node's reply was none"),
    ],
)
async def test_an_error_of_the_app_is_the_reply(
    lab: Lab, word: bytes, code: int, reason: str
) -> None:
    async with lab.life() as [node_id, *_]:
        run_id = await lab.run()
        error = (await lab.reply(await lab.ask(run_id, node_id, word))).message.error
        assert error.code == code
        assert reason in error.reason
        assert await lab.said(await lab.ask(run_id, node_id)) == b"x", "it has not lost its place"


async def test_a_reply_without_a_ttl_is_an_error(lab: Lab) -> None:
    lab.backend.ttl = 0.0
    async with lab.life() as [node_id, *_]:
        reply = await lab.reply(await lab.ask(await lab.run(), node_id))
    assert "ttl must be" in reply.message.error.reason


async def test_the_messages_of_a_round_are_in_memory_once(lab: Lab) -> None:
    async with lab.life() as nodes:
        run_id = await lab.run()
        asked = [await lab.ask(run_id, node_id, b"hold") for node_id in nodes[:2]]
        await lab.at_work(2)
        first, second = lab.backend.jobs
        assert first.content is second.content
        lab.backend.hold.set()
        for one in asked:
            await lab.said(one)


async def test_a_node_works_on_one_message_at_a_time(lab: Lab) -> None:
    async with lab.life() as [node_id, *_]:
        run_id = await lab.run()
        asked = [await lab.ask(run_id, node_id, word) for word in (b"hold", b"a", b"b")]
        await lab.at_work(1)
        assert len(lab.backend.jobs) == 1
        lab.backend.hold.set()
        assert [await lab.said(one) for one in asked] == [b"hold", b"a.", b"b.."]


# What goes wrong


async def test_what_is_under_way_when_the_backend_dies_is_run_again_but_once(lab: Lab) -> None:
    async with lab.life() as [node_id, *_]:
        pass
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lab.dies)
        await settle(lab.state)
        run_id, node_id = await lab.run(), min(await lab.state.online_nodes())
        asked = await lab.ask(run_id, node_id, b"bomb")
    await lab.dies()
    async with lab.life() as nodes:
        assert node_id in nodes
        assert "died twice" in (await lab.reply(asked)).message.error.reason
    assert len(lab.backend.jobs) == 2


async def test_a_run_that_ends_takes_its_work_along(lab: Lab) -> None:
    async with lab.life() as [node_id, *_]:
        run_id = await lab.run()
        await lab.ask(run_id, node_id, b"hold")
        await lab.at_work(1)
        await lab.state.finish_run(run_id, RunOutcome.STOPPED)
        lab.backend.hold.set()
        other = await lab.run()
        assert await lab.said(await lab.ask(other, node_id)) == b"x"


async def test_nobody_is_answered_whose_run_is_over_for_the_backend(lab: Lab) -> None:
    async with lab.life() as [node_id, *_]:
        run_id = await lab.run()
        await lab.ask(run_id, node_id, b"over")
        assert await lab.said(await lab.ask(run_id, node_id)) == b"x"


async def test_a_reply_for_which_there_is_no_room_waits_for_it(mock_clock: MockClock) -> None:
    limits = StateLimits(stored_size=4000)
    state = MemoryMessages(clock=lambda: EPOCH + trio.current_time(), limits=limits)
    lab = Lab(state, Echo(padding=2500))
    async with lab.life() as nodes:
        run_id = await lab.run()
        asked = [await lab.ask(run_id, node_id, b"hold") for node_id in nodes[:2]]
        await lab.at_work(2)
        lab.backend.hold.set()
        await settle(state)
        here = await state.take_replies(run_id, [one.message_id for one in asked])
        assert len(here) == 1, "there is no room for another"
        await read(state, run_id, SERVER, here[0])
        mock_clock.jump(1)
        [late] = [one for one in asked if one.message_id not in answered(here)]
        assert (await lab.said(late)).startswith(b"hold")


def answered(replies: Sequence[Envelope]) -> list[str]:
    return [reply.message.metadata.reply_to_message_id for reply in replies]
