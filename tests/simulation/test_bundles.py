"""A backend for each run that brings its app along, over a real state."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from peering.parcels import bundle
from simulations import job
from trio.testing import MockClock, wait_all_tasks_blocked
from workshop import Workshop, not_loaded

from superlink_trio.simulation.backend import App, Backend, BackendDied, Job, Outcome, RunOver
from superlink_trio.simulation.beside import ungrouped
from superlink_trio.simulation.bundles import open_bundles
from superlink_trio.state.messages import MemoryMessages, NewRun
from superlink_trio.wire.messages import Outcome as RunOutcome
from superlink_trio.wire.runs import Fab
from superlink_trio.wire.tasks import TaskError

PROJECT = "[tool.flwr.app.components]\nclientapp = 'client:app'\n"


@attrs.define(eq=False)
class Lab:
    state: MemoryMessages = attrs.field(factory=MemoryMessages)
    workshop: Workshop = attrs.field(factory=Workshop)
    apps: list[App] = attrs.field(factory=list)
    """Those that are open."""
    told: list[str] = attrs.field(factory=list)
    """What their folders held when they were opened."""
    forgotten: list[int] = attrs.field(factory=list)
    opening: trio.Event | None = None
    """What opening waits for."""

    @asynccontextmanager
    async def open_app(self, app: App) -> AsyncIterator[Backend]:
        self.told.append((app.directory / "client.py").read_text())
        if self.opening is not None:
            await self.opening.wait()
        async with self.workshop.open(app, {}) as backend:
            self.apps.append(app)
            try:
                yield backend
            finally:
                self.apps.remove(app)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backend]:
        async with open_bundles(self.state, self.open_app, 2, self.forgotten.append) as backend:
            assert backend.capacity == 2
            yield backend

    async def run(self, text: str = "one", project: str = PROJECT) -> int:
        fab = bundle(project, **{"client.py": text.encode()})
        new = NewRun(fab=Fab(hash=text, content=fab.content), fab_id="me/app", fab_version="1")
        return (await self.state.create_run(new)).run_id

    async def end(self, run_id: int) -> None:
        await self.state.finish_run(run_id, RunOutcome.COMPLETED)


@pytest.fixture
def lab(mock_clock: MockClock) -> Lab:
    return Lab()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where bundles are unpacked; nothing is left there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def job_of(run_id: int, content: bytes = b"x") -> Job:
    one = job(content)
    return attrs.evolve(one, task=attrs.evolve(one.task, run_id=run_id))


async def unpacked(folder: Path, count: int) -> list[Path]:
    """Wait until there are as many bundles: what removes them is a thread."""
    with trio.fail_after(5):
        while True:
            found = list(folder.glob("*/*"))
            if len(found) == count:
                return found
            await trio.to_thread.run_sync(time.sleep, 0.001)


async def test_each_run_has_its_own_app_until_it_is_over(lab: Lab, folder: Path) -> None:
    async with lab.open() as backend:
        assert lab.apps == []
        first, second = await lab.run("one"), await lab.run("two")
        for run_id in (first, second, first):
            await backend.run(job_of(run_id))
        assert lab.told == ["one", "two"]
        assert {app.reference for app in lab.apps} == {"client:app"}
        assert all(app.objects for app in lab.apps)
        await lab.end(first)
        assert await unpacked(folder, 1) == [app.directory for app in lab.apps]
        assert lab.forgotten == [first]
        await backend.run(job_of(second))
    assert lab.apps == []
    assert lab.forgotten == [first], "the other is not over"


async def test_a_bundle_that_unpacks_to_too_much_is_not_unpacked(
    lab: Lab, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superlink_trio.simulation.bundles._MOST_UNPACKED", 1000)
    async with lab.open() as backend:
        outcome = await backend.run(job_of(await lab.run(1000 * "x")))
        assert isinstance(outcome.content, TaskError)
        assert "unpacks to" in outcome.content.reason
        assert [path.name for path in folder.glob("*/*/*")] == []


async def test_a_job_whose_run_ends_is_given_up(lab: Lab, folder: Path) -> None:
    async with lab.open() as backend:
        run_id = await lab.run()
        for content in (b"hold", b"x"):

            async def run(content: bytes = content) -> None:
                with pytest.raises(RunOver):
                    await backend.run(job_of(run_id, content))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run)
                with trio.fail_after(5):
                    while content == b"hold" and not lab.workshop.jobs:
                        await trio.lowlevel.checkpoint()
                await lab.end(run_id)
        await unpacked(folder, 0)


async def test_what_is_opened_for_a_run_that_ends_is_not_waited_for(lab: Lab, folder: Path) -> None:
    lab.opening = trio.Event()
    async with lab.open() as backend, trio.open_nursery() as nursery:
        run_id = await lab.run()

        async def run() -> None:
            with pytest.raises(RunOver):
                await backend.run(job_of(run_id))

        nursery.start_soon(run)
        with trio.fail_after(5):
            while not lab.told:
                await trio.to_thread.run_sync(time.sleep, 0.001)
        await lab.end(run_id)
    assert lab.apps == []


@pytest.mark.parametrize(
    ("project", "refusal", "words"),
    [
        ("[project]", None, "names no ClientApp"),
        (PROJECT, not_loaded(), "No module named 'torch'"),
        (PROJECT, ConnectionError("Ray cannot be started"), "Ray cannot be started"),
        (PROJECT, BackendDied("it ended"), "it ended"),
    ],
)
async def test_an_app_that_cannot_be_run_is_an_error_to_its_run_alone(
    lab: Lab, project: str, refusal: Exception | None, words: str
) -> None:
    lab.workshop.refusal, lab.workshop.in_group = refusal, True
    async with lab.open() as backend:
        faulty = await lab.run("faulty", project)
        for _ in range(2):
            outcome: Outcome = await backend.run(job_of(faulty))
            assert isinstance(outcome.content, TaskError)
            assert outcome.content.code == 1
            assert words in outcome.content.reason
            assert words in outcome.fault
        lab.workshop.refusal = None
        outcome = await backend.run(job_of(await lab.run("sound")))
        assert isinstance(outcome.content, bytes)


async def test_the_death_of_a_backend_is_the_death_of_all(lab: Lab) -> None:
    async def live() -> None:
        with ungrouped(BackendDied):
            async with lab.open() as backend:
                run_id = await lab.run()
                await backend.run(job_of(run_id))
                await backend.run(job_of(run_id, b"bomb"))

    with pytest.raises(BackendDied):
        await live()
    assert lab.forgotten == [], "the run goes on, and finds what its nodes remember"


async def test_a_stop_ends_what_is_open(lab: Lab) -> None:
    async with lab.open() as backend:
        await backend.run(job_of(await lab.run()))
        await wait_all_tasks_blocked()
        assert lab.apps
    assert lab.apps == []
