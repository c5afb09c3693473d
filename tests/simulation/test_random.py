"""Random lives of a simulation: tasks, workers and backends that die, stops, in any order."""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio
from builders import EPOCH
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import STORES
from trio.testing import MockClock
from workshop import Lab, Workshop

from examples import at_most
from superlink_trio.simulation.backend import BackendDied
from superlink_trio.state import State
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import TaskError

_CONTENTS = {b"a": 6, b"b": 6, b"hold": 3, b"fail": 2, b"crash": 2, b"bomb": 1}
_MOST_TASKS = 40


@attrs.frozen
class Asked:
    node: int
    run_id: int
    content: bytes


@attrs.define(eq=False)
class History:
    """What a driver asked and was answered, over all lives of a simulation."""

    rng: random.Random
    lab: Lab
    runs: tuple[int, int]
    asked: dict[str, Asked] = attrs.field(factory=dict)
    answered: dict[str, bytes | TaskError] = attrs.field(factory=dict)

    @property
    def open(self) -> set[str]:
        return self.asked.keys() - self.answered.keys()

    async def unfold(self) -> None:
        """Live a few times at random, then until every task is answered."""
        for _ in range(self.rng.randint(0, 4)):
            await self.survive(self.live)
        self.lab.workshop.go.set()
        await self.survive(self.live_on)
        while self.open:
            await self.survive(self.live_on)

    async def survive(self, life: Callable[[], Awaitable[None]]) -> None:
        try:
            await life()
        except ExceptionGroup as group:
            if group.split(BackendDied)[1] is not None:
                raise

    async def live(self) -> None:
        with trio.CancelScope() as grace:
            async with self.lab.life() as stopping:
                for _ in range(self.rng.randint(1, 12)):
                    await self.happen()
                match self.rng.choice(["die", "stop", "run out of grace"]):
                    case "die":
                        self.lab.workshop.opened[-1].death.set()
                        await trio.sleep_forever()
                    case "stop":
                        stopping.set()
                        self.lab.workshop.release()
                        await self.lab.settle()
                        self.lab.workshop.release()
                    case _:
                        stopping.set()
                        await self.pause()
                        grace.cancel()

    async def live_on(self) -> None:
        async with self.lab.life():
            if not self.asked:
                await self.push()
            while self.open:
                await self.lab.state.await_task_res(self.open, 1)
                await self.collect()

    async def happen(self) -> None:
        match self.rng.choice(["push", "push", "collect", "release", "pause", "settle"]):
            case "push":
                await self.push()
            case "collect":
                await self.collect()
            case "release":
                self.lab.workshop.release()
            case "pause":
                await self.pause()
            case _:
                await self.lab.settle()

    async def pause(self) -> None:
        for _ in range(self.rng.randint(0, 30)):
            await trio.lowlevel.checkpoint()

    async def push(self) -> None:
        nodes = await self.lab.nodes()
        for _ in range(min(self.rng.randint(1, 8), _MOST_TASKS - len(self.asked))):
            node, run_id = self.rng.choice(nodes), self.rng.choice(self.runs)
            [content] = self.rng.choices(list(_CONTENTS), list(_CONTENTS.values()))
            with trio.CancelScope(shield=True):
                [task_id] = await self.lab.push(node, content, run_id=run_id)
            self.asked[task_id] = Asked(node, run_id, content)

    async def collect(self) -> None:
        # The driver does not die with the simulation.
        with trio.CancelScope(shield=True):
            answers = await self.lab.answered(self.open)
        for answer in answers:
            [task_id] = answer.ancestry
            assert task_id not in self.answered
            assert answer.producer == self.asked[task_id].node
            self.answered[task_id] = answer.content

    def check(self) -> None:
        """Each node's Context in each run is what its successful tasks made of it, in order."""
        contexts: dict[tuple[int, int], bytes] = defaultdict(bytes)
        for task_id, asked in self.asked.items():
            content = self.answered[task_id]
            if isinstance(content, TaskError):
                continue
            assert asked.content in (b"a", b"b", b"hold")
            assert content == contexts[asked.node, asked.run_id]
            contexts[asked.node, asked.run_id] += asked.content + b"."


async def unfold(rng: random.Random, store: str) -> None:
    start = trio.current_time()
    with tempfile.TemporaryDirectory() as folder:
        state = STORES[store](lambda: EPOCH + trio.current_time() - start, Path(folder))
        stopping = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(
                lambda task_status: state.serve(stopping=stopping, task_status=task_status)
            )
            await _unfold(rng, state)
            stopping.set()


async def _unfold(rng: random.Random, state: State) -> None:
    lab = Lab(state, Path(), Workshop(capacity=rng.randint(1, 4)))
    lab.make(num_nodes=rng.randint(1, 5))
    lab.run_id = await state.create_run(Run())
    history = History(rng, lab, (lab.run_id, await state.create_run(Run())))
    await history.unfold()
    history.check()
    assert await lab.nodes() == []


@pytest.mark.parametrize(("store", "examples"), [("memory", 100), ("sqlite", 15)])
def test_whatever_happens_every_task_is_answered_once(store: str, examples: int) -> None:
    @settings(max_examples=at_most(examples), deadline=None)
    @given(seed=st.integers(min_value=0))
    def history(seed: int) -> None:
        # Not of Hypothesis's own drawing: Trio's scheduling is random as well.
        trio.run(unfold, random.Random(seed), store, clock=MockClock())

    history()
