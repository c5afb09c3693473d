"""What starts the process of each run. The programs are small scripts in Flower's place."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest
import trio

from superlink_trio.config import Address
from superlink_trio.processes.handover import Handover, SessionLeader
from superlink_trio.processes.sessions import members
from superlink_trio.runtime import Launcher
from superlink_trio.state import SqliteState, State
from superlink_trio.state.messages import DurableMessages, MemoryMessages, MessageState, NewRun
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Outcome, RunRecord, RunStatus
from superlink_trio.wire.runs import Fab

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")

Program = Callable[[str], Path]


@pytest.fixture
def program(tmp_path: Path) -> Program:
    def program(text: str) -> Path:
        path = tmp_path / "flwr-serverapp"
        path.write_text(f"#!{sys.executable}\nimport sys\n{text}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return program


@pytest.fixture
def state() -> MemoryMessages:
    return MemoryMessages()


async def a_run(state: MessageState, simulation: pb.SimulationConfig | None = None) -> RunRecord:
    fab = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
    new = NewRun(fab=fab, fab_id="me/app", fab_version="1", simulation=simulation)
    return await state.create_run(new)


def launcher(state: MessageState, path: Path | None, *, most: int = 4) -> Launcher:
    return Launcher(
        state=state,
        address=lambda: Address("127.0.0.1", 8000),
        certificate=None,
        most=most,
        find=lambda _: None if path is None else str(path),
    )


async def ended(state: MessageState, run: RunRecord) -> RunRecord:
    with trio.fail_after(30):
        await state.await_finished(run.run_id)
    found = await state.run(run.run_id)
    assert found is not None
    return found


async def serve(launcher: Launcher, stopping: trio.Event, nursery: trio.Nursery) -> None:
    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        await launcher(stopping=stopping, task_status=task_status)

    await nursery.start(run)


async def test_a_process_gets_its_token_where_nobody_sees_it(
    state: MemoryMessages, program: Program, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    path = program(
        f"""
name = sys.argv[sys.argv.index("--token-file") + 1]
open({str(out)!r}, "w").write("|".join([open(name).read(), *sys.argv[1:]]))
"""
    )
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await serve(launcher(state, path), stopping, nursery)
        run = await ended(state, await a_run(state))
        stopping.set()
    token, *words = out.read_text().split("|")
    assert len(token) == 64
    assert token not in " ".join(words)
    assert words[:2] == ["--runtime-api-address", "127.0.0.1:8000"]
    assert "--insecure" in words
    # It ends when the SuperLink was killed, which has its run in memory.
    assert words[words.index("--parent-pid") + 1] == str(os.getpid())
    # It has said nothing of how it ended.
    assert (run.outcome, run.details) == (Outcome.FAILED, "its process ended with status 0")


async def test_a_process_that_fails_says_why(state: MemoryMessages, program: Program) -> None:
    path = program('print("no such app", file=sys.stderr)\nsys.exit(3)')
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await serve(launcher(state, path), stopping, nursery)
        run = await ended(state, await a_run(state))
        stopping.set()
    assert run.outcome is Outcome.FAILED
    assert run.details == "its process ended with status 3\nno such app"


@pytest.mark.parametrize(
    ("path", "words"),
    [(None, "-m pip install 'flwr>=1.39'"), (Path("/nowhere/flwr-serverapp"), "cannot be started")],
)
async def test_a_program_that_is_not_there(
    state: MemoryMessages, path: Path | None, words: str
) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await serve(launcher(state, path), stopping, nursery)
        run = await ended(state, await a_run(state))
        stopping.set()
    assert words in run.details


async def test_a_run_that_is_simulated_has_a_program_of_its_own(state: MemoryMessages) -> None:
    asked: list[str] = []
    nothing = attrs.evolve(launcher(state, None), find=asked.append)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await serve(nothing, stopping, nursery)
        run = await ended(state, await a_run(state, pb.SimulationConfig(num_supernodes=2)))
        stopping.set()
    assert asked == ["flwr-simulation"]
    assert "flwr-simulation is not installed" in run.details
    assert "-m pip install 'flwr[simulation]>=1.39'" in run.details


@pytest.mark.parametrize("how", ["stop the run", "stop the SuperLink"])
async def test_a_process_ends_with_everybody_it_has_started(
    state: MemoryMessages, program: Program, tmp_path: Path, how: str
) -> None:
    pid_file = tmp_path / "pid"
    path = program(
        f"""
import os, pathlib, signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
partial = pathlib.Path({str(pid_file)!r} + ".partial")
partial.write_text(str(os.getpid()))
partial.rename({str(pid_file)!r})
time.sleep(600)
"""
    )
    stopping = trio.Event()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await serve(launcher(state, path), stopping, nursery)
            run = await a_run(state)
            while not pid_file.exists():
                await trio.lowlevel.checkpoint()
            session = int(pid_file.read_text())
            assert members(session)
            if how == "stop the run":
                await state.finish_run(run.run_id, Outcome.STOPPED)
                while members(session):
                    await trio.lowlevel.checkpoint()
            stopping.set()
    assert not members(session)
    found = await ended(state, run)
    if how == "stop the SuperLink":
        assert (found.outcome, found.details) == (Outcome.FAILED, "the SuperLink was stopped")


async def test_a_process_can_print_when_the_superlink_was_killed(
    state: MemoryMessages, program: Program
) -> None:
    path = program("import os, stat\nsys.exit(stat.S_ISREG(os.fstat(1).st_mode))")
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await serve(launcher(state, path), stopping, nursery)
        run = await ended(state, await a_run(state))
        stopping.set()
    assert run.details == "its process ended with status 1", "it prints into a file, not a pipe"


async def test_only_so_many_run_at_the_same_time(
    state: MemoryMessages, program: Program, tmp_path: Path
) -> None:
    path = program(
        f"""
import os, pathlib
place = pathlib.Path({str(tmp_path / "busy")!r})
place.mkdir()
place.rmdir()
"""
    )
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await serve(launcher(state, path, most=1), stopping, nursery)
        runs = [await a_run(state) for _ in range(3)]
        details = [(await ended(state, run)).details for run in runs]
        stopping.set()
    assert details == ["its process ended with status 0"] * 3


LeftOver = Callable[[RunRecord], SessionLeader]


@pytest.fixture
def left_over() -> Iterator[LeftOver]:
    """Start processes as somebody did who was killed since."""
    program = [sys.executable, "-c", "import signal; signal.pause()"]
    with ExitStack() as stack:

        def start(run: RunRecord) -> SessionLeader:
            started = stack.enter_context(subprocess.Popen(program, start_new_session=True))
            stack.callback(started.kill)
            process = SessionLeader.of(run.run_id, started.pid)
            assert process is not None
            return process

        yield start


async def test_what_another_one_has_started_is_taken_over(
    state: MemoryMessages, program: Program, left_over: LeftOver
) -> None:
    one, other = await a_run(state), await a_run(state)
    for _ in range(2):
        assert await state.claim_run() is not None
    processes = left_over(one), left_over(other)
    waiting = await a_run(state)
    noted: list[Sequence[SessionLeader]] = []
    path = program("import signal\nsignal.pause()")
    taking_over = attrs.evolve(
        launcher(state, path, most=2), handover=Handover(noted.append, processes)
    )
    stopping = trio.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await serve(taking_over, stopping, nursery)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert state.live_runs()[waiting.run_id].status is RunStatus.PENDING, "no place"
            processes[0].kill()
            assert (await ended(state, one)).details == "its process has ended"
            while len(noted) < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert [{each.purpose for each in told} for told in noted] == [
                {other.run_id},
                {other.run_id, waiting.run_id},
            ]
            stopping.set()
    assert (await ended(state, other)).details == "the SuperLink was stopped"
    assert not members(processes[1].pid)
    assert noted[-1] == ()


async def test_a_process_that_has_another_ones_id_is_left_alone(
    state: MemoryMessages, program: Program, left_over: LeftOver
) -> None:
    run = await a_run(state)
    assert await state.claim_run() is not None
    stranger = left_over(run)
    gone = attrs.evolve(stranger, began=stranger.began - 1)
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        taking_over = attrs.evolve(
            launcher(state, program("")), handover=Handover(lambda _: None, [gone])
        )
        await serve(taking_over, stopping, nursery)
        assert (await ended(state, run)).details == "its process has ended"
        stopping.set()
    assert members(stranger.pid)


async def test_a_database_that_cannot_be_used_is_waited_for(
    program: Program, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "state.db"
    durable, stopping = SqliteState(str(file), patience=0.1), trio.Event()
    state = DurableMessages(durable)
    path = program("sys.exit(3)")

    async def serve_state(
        served: State | MessageState, *, task_status: trio.TaskStatus[None]
    ) -> None:
        await served.serve(stopping=stopping, task_status=task_status)

    async with trio.open_nursery() as nursery:
        for served in (durable, state):
            await nursery.start(serve_state, served)
        run = await a_run(state)
        file.rename(tmp_path / "elsewhere")
        await serve(launcher(state, path), stopping, nursery)
        with trio.fail_after(30):
            while "has vanished" not in caplog.text:
                await trio.lowlevel.checkpoint()
        (tmp_path / "elsewhere").rename(file)
        assert (await ended(state, run)).details == "its process ended with status 3"
        stopping.set()
