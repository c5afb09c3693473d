"""What every backend has to keep."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import trio
from simulations import (
    BACKENDS,
    TWO_WORKERS,
    apps,
    content,
    elsewhere,
    eventually,
    job,
    pid_of,
    runs,
    todo,
)
from workshop import Lab

from superlink_trio.clientapp import RecordSet, decode, encode
from superlink_trio.processes.sessions import members
from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    OpenBackend,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.process.settings import usable_cpus
from superlink_trio.state import MemoryState
from superlink_trio.wire.runs import Run
from superlink_trio.wire.tasks import TaskError

# They share a Ray, which only tests of one process can.
pytestmark = pytest.mark.xdist_group("Ray of test_backends")

_PARAMS = ["process", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.fixture(params=_PARAMS)
def open_backend(request: pytest.FixtureRequest) -> OpenBackend:
    return BACKENDS[request.param]


@pytest.fixture(params=_PARAMS, scope="module")
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Backend]:
    """Two workers whose app is `chosen`: for tests that leave it as it was."""
    app = apps(tmp_path_factory.mktemp("chosen"), "chosen")
    with elsewhere(lambda: BACKENDS[request.param](app, TWO_WORKERS)) as backend:
        yield backend


def _pipe(folder: Path, name: str) -> Path:
    path = folder / name
    os.mkfifo(path)
    return path


async def _hear(pipe: Path) -> str:
    """Wait until the other side has written."""
    return await trio.to_thread.run_sync(pipe.read_text, abandon_on_cancel=True)


async def _into(outcomes: list[Outcome], backend: Backend, job: Job) -> None:
    outcomes.append(await backend.run(job))


@pytest.mark.smoke
async def test_an_app_answers_and_keeps_its_state(backend: Backend) -> None:
    first = await backend.run(job(RecordSet(configs={"a": {"b": "c"}}), app="echo"))
    assert content(first).configs == {"a": {"b": "c"}}
    assert 3500 < first.ttl <= 3600
    second = await backend.run(job(state=first.state, app="echo"))
    assert decode(second.state).metrics == {"seen": {"times": 2}}


async def test_as_many_jobs_run_at_once_as_it_says(backend: Backend, tmp_path: Path) -> None:
    ends = [_pipe(tmp_path, f"end-{number}") for number in range(2)]
    assert backend.capacity == 2
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        # One opens the pipe that the other reads: neither gets on alone.
        nursery.start_soon(_into, outcomes, backend, todo(tell=ends[0]))
        nursery.start_soon(_into, outcomes, backend, todo(wait=ends[0]))
    assert len({pid_of(outcome) for outcome in outcomes}) == 2


async def test_more_jobs_than_that_wait_for_each_other(backend: Backend) -> None:
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(_into, outcomes, backend, job(app="pid"))
    assert len(outcomes) == 20
    assert len({pid_of(outcome) for outcome in outcomes}) <= 2


@pytest.mark.parametrize(
    ("app", "reason"),
    [
        ("fail", "<class 'ZeroDivisionError'>:<'division by zero'>"),
        ("leave", "<class 'SystemExit'>:<'3'>"),
    ],
)
async def test_an_app_that_raises_fails_its_job_alone(
    backend: Backend, app: str, reason: str
) -> None:
    state = encode(RecordSet(configs={"kept": {}}))
    for _ in range(3):
        outcome = await backend.run(job(state=state, app=app))
        assert (outcome.content, outcome.state) == (TaskError(2, reason), state)
    if app == "fail":
        fine = await backend.run(job(RecordSet(configs={"fine": {}}), app=app))
        assert content(fine) == RecordSet()


async def test_an_app_that_cannot_be_loaded_is_told_before_anything_runs(
    open_backend: OpenBackend, tmp_path: Path
) -> None:
    (tmp_path / "broken_app.py").write_text("def work():\n    return {}['gone']\n\nwork()\n")
    with pytest.raises(AppNotLoaded) as caught:
        async with open_backend(App(reference="broken_app:app", directory=tmp_path), TWO_WORKERS):
            raise AssertionError("it opened")
    assert "broken_app.py" in str(caught.value)
    assert str(caught.value).endswith("KeyError: 'gone'")


async def test_a_worker_that_is_killed_fails_its_job_alone(
    backend: Backend, tmp_path: Path
) -> None:
    pipe, end = _pipe(tmp_path, "pipe"), _pipe(tmp_path, "end")
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_into, outcomes, backend, todo(tell=pipe, wait=end))
        other = int(await _hear(pipe))
        with pytest.raises(WorkerDied):
            await backend.run(todo(die="now"))
        await trio.to_thread.run_sync(end.write_text, "go on")
    assert [pid_of(outcome) for outcome in outcomes] == [other]
    assert pid_of(await backend.run(todo())) > 0


async def test_a_worker_that_dies_while_idle_is_replaced(backend: Backend) -> None:
    pid = pid_of(await backend.run(job(app="pid")))
    os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        try:
            outcome = await backend.run(job(app="pid"))
        except WorkerDied:
            continue
        assert pid_of(outcome) != pid


async def test_a_job_that_is_cancelled_ends_and_the_next_ones_run(
    open_backend: OpenBackend, tmp_path: Path
) -> None:
    pipe, never = _pipe(tmp_path, "pipe"), _pipe(tmp_path, "never")
    async with open_backend(apps(tmp_path, "steps"), TWO_WORKERS) as backend:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(backend.run, todo(tell=pipe, wait=never))
                await _hear(pipe)
                nursery.cancel_scope.cancel()
        assert pid_of(await backend.run(todo())) > 0


async def test_leaving_the_block_ends_what_is_running(
    open_backend: OpenBackend, tmp_path: Path
) -> None:
    pipe, never = _pipe(tmp_path, "pipe"), _pipe(tmp_path, "never")
    ended: list[BackendDied] = []

    async def expect_the_end(backend: Backend, waiting: Job) -> None:
        try:
            await backend.run(waiting)
        except BackendDied as error:
            ended.append(error)

    async with (
        trio.open_nursery() as nursery,
        open_backend(apps(tmp_path, "steps"), TWO_WORKERS) as backend,
    ):
        nursery.start_soon(expect_the_end, backend, todo(tell=pipe, wait=never))
        pid = int(await _hear(pipe))
    assert len(ended) == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(BackendDied):
        await backend.run(todo())


async def test_what_an_app_has_started_ends_with_its_job(
    open_backend: OpenBackend, tmp_path: Path
) -> None:
    pipe = _pipe(tmp_path, "pipe")
    async with open_backend(apps(tmp_path, "parent"), TWO_WORKERS) as backend:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.run, todo(tell=pipe))
            pids = [int(pid) for pid in (await _hear(pipe)).split()]
            nursery.cancel_scope.cancel()
        await eventually(lambda: not any(map(runs, pids)))


_SUPERLINK = """
import sys, trio
from pathlib import Path
from simulations import BACKENDS, TWO_WORKERS, App, todo

async def main(backend, folder):
    app = App(reference="simulated_apps:parent", directory=Path(folder))
    async with BACKENDS[backend](app, TWO_WORKERS) as backend:
        await backend.run(todo(tell=Path(folder) / "pipe"))

trio.run(main, *sys.argv[1:])
"""


@pytest.mark.parametrize("name", _PARAMS)
async def test_nothing_runs_on_when_the_superlink_is_killed(name: str, tmp_path: Path) -> None:
    apps(tmp_path, "parent")
    pipe = _pipe(tmp_path, "pipe")
    superlink = await trio.lowlevel.open_process(
        [sys.executable, "-c", _SUPERLINK, name, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    pids = [int(pid) for pid in (await _hear(pipe)).split()]
    session = os.getsid(pids[0])
    superlink.kill()
    await superlink.wait()
    await eventually(lambda: not any(map(runs, pids)) and not members(session))


async def test_an_app_may_start_processes(backend: Backend) -> None:
    assert pid_of(await backend.run(job(app="load"))) > 0


async def test_large_contents_and_states_arrive_whole(backend: Backend) -> None:
    records = RecordSet({"model": {"weights": np.arange(1_000_000)}})
    large = encode(records)
    first = await backend.run(job(large, app="remember"))
    assert (first.content, first.state) == (b"", large)
    second = await backend.run(job(state=first.state, app="remember"))
    assert (second.content, second.state) == (large, b"")


async def test_a_failure_keeps_a_large_state(backend: Backend) -> None:
    state = encode(RecordSet({"model": {"weights": np.arange(1_000_000)}}))
    outcome = await backend.run(job(state=state, app="fail"))
    assert isinstance(outcome.content, TaskError)
    assert outcome.state == state


async def test_many_nodes_get_the_same_large_content(backend: Backend) -> None:
    large = encode(RecordSet({"model": {"weights": np.arange(100_000)}}))
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        for node in range(1, 13):
            nursery.start_soon(_into, outcomes, backend, job(large, node=node, app="echo"))
    assert [outcome.content == large for outcome in outcomes] == [True] * 12


async def test_a_mistake_in_an_app_is_one_traceback_and_a_sum(
    backend: Backend,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    @asynccontextmanager
    async def open_backend(app: App, config: Mapping[str, object]) -> AsyncIterator[Backend]:
        yield backend

    lab = Lab(MemoryState(), tmp_path)
    lab.make(num_nodes=10, open_backend=open_backend)
    async with lab.life():
        run_id = await lab.state.create_run(Run(override_config={"app": "fail"}))
        tasks = [
            task_id
            for node in await lab.nodes()
            for task_id in await lab.push(node, b"", b"", b"", run_id=run_id, group_id="1")
        ]
        assert len(await lab.answers(tasks)) == 30
    failed, summed_up = caplog.records
    # What `--log-format json` has as one object.
    names = ("node_id", "partition_id", "run_id", "round", "exception")
    fields = [vars(failed)[name] for name in names]
    assert fields[2:4] == [run_id, "1"]
    assert fields[4].startswith("Traceback")
    assert fields[4].endswith("ZeroDivisionError: division by zero")
    line = f"30 of 30 tasks of run {run_id} failed: ZeroDivisionError in simulated_apps.py:"
    assert summed_up.getMessage().startswith(line)
    assert summed_up.getMessage().endswith(" (30 times)")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", _PARAMS)
async def test_an_app_that_takes_long_to_load_is_told(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "slow_app.py").write_text(
        "import time\ntime.sleep(2.5)\ndef app(message, context): pass\n"
    )
    app = App(reference="slow_app:app", directory=tmp_path)
    async with BACKENDS[name](app, {"client_resources": {"num_cpus": usable_cpus()}}):
        pass
    told = [message for message in caplog.messages if "Loading" in message]
    assert told[0] == f"Loading slow_app:app from {tmp_path}, 2 s so far"
    assert told[-1].startswith(f"Loading slow_app:app from {tmp_path} took ")
