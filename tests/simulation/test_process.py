from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from simulations import TWO_WORKERS, apps, eventually, job, pid_of, runs, todo

from superlink_trio.simulation.backend import App, AppNotLoaded, Backend, WorkerDied
from superlink_trio.simulation.process import backend, child
from superlink_trio.simulation.process.backend import open_process_backend
from superlink_trio.simulation.process.settings import ProcessSettings, usable_cpus


def _workers() -> set[int]:
    """Give those of this process's children that are workers."""
    listed = Path("/proc/self/task").glob("*/children")
    children = {int(pid) for file in listed for pid in file.read_text().split()}
    return {pid for pid in children if "process.child" in Path(f"/proc/{pid}/cmdline").read_text()}


def _shared() -> set[str]:
    if not os.path.isdir("/dev/shm"):
        return set()
    own = f"superlink-trio-{os.getuid()}-{os.getpid()}-"
    return {entry for entry in os.listdir("/dev/shm") if entry.startswith(own)}


@asynccontextmanager
async def _leaving_nothing() -> AsyncIterator[None]:
    yield
    assert not _workers()
    assert not _shared()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="shared memory is elsewhere")
async def test_it_has_two_processes_and_a_directory_while_it_is_open(tmp_path: Path) -> None:
    async with _leaving_nothing(), open_process_backend(apps(tmp_path, "pid"), TWO_WORKERS):
        assert len(_workers()) == 2
        assert len(_shared()) == 1


async def test_nothing_is_left_of_it_when_it_is_cancelled(tmp_path: Path) -> None:
    async with _leaving_nothing():
        with trio.CancelScope() as scope:
            async with open_process_backend(apps(tmp_path, "pid"), TWO_WORKERS) as backend:
                await backend.run(job())
                scope.cancel()
                await trio.sleep_forever()


async def test_nothing_is_left_of_it_when_the_block_fails(tmp_path: Path) -> None:
    async def fail() -> None:
        async with open_process_backend(apps(tmp_path, "steps"), TWO_WORKERS) as backend:
            # A worker that ends badly as well does not hide the block's own error.
            for pid in _workers():
                os.kill(pid, signal.SIGKILL)
            raise OSError(f"of the block's own, with {backend.capacity} workers")

    async with _leaving_nothing():
        with pytest.raises(OSError, match="of the block's own"):
            await fail()


async def test_cancelled_while_it_starts_it_leaves_nothing_behind(tmp_path: Path) -> None:
    pipe, never = tmp_path / "pipe", tmp_path / "never"
    os.mkfifo(pipe)
    os.mkfifo(never)
    (tmp_path / "slow_app.py").write_text(
        f"from pathlib import Path\nPath({str(pipe)!r}).write_text('here')\n"
        f"Path({str(never)!r}).read_text()\n"
    )
    app = App(reference="slow_app:app", directory=tmp_path)

    async def open_it() -> None:
        async with open_process_backend(app, TWO_WORKERS):
            raise AssertionError("it opened")

    async with _leaving_nothing(), trio.open_nursery() as nursery:
        nursery.start_soon(open_it)
        await trio.to_thread.run_sync(pipe.read_text)
        nursery.cancel_scope.cancel()


async def test_it_is_told_how_a_worker_ended(tmp_path: Path) -> None:
    async with open_process_backend(apps(tmp_path, "steps"), TWO_WORKERS) as backend:
        with pytest.raises(WorkerDied, match="was ended by SIGKILL"):
            await backend.run(todo(die="now"))


async def test_an_app_that_ends_the_process_that_loads_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "deadly_app.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(AppNotLoaded, match="ended with status 7"):
        async with open_process_backend(
            App(reference="deadly_app:app", directory=tmp_path), TWO_WORKERS
        ):
            raise AssertionError("it opened")


async def test_ctrl_c_in_the_terminal_does_not_reach_the_workers(tmp_path: Path) -> None:
    async with open_process_backend(apps(tmp_path, "pid"), TWO_WORKERS) as backend:
        pid = pid_of(await backend.run(job()))
        assert os.getpgid(pid) == os.getsid(pid) == pid


async def test_an_idle_worker_may_put_away_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "tidy_app.py").write_text(
        "import atexit\nfrom pathlib import Path\n"
        f"atexit.register(Path({str(tmp_path / 'put away')!r}).touch)\n"
        "def app(message, context): pass\n"
    )
    app = App(reference="tidy_app:app", directory=tmp_path)
    async with open_process_backend(app, TWO_WORKERS):
        pass
    assert (tmp_path / "put away").exists()


async def test_when_there_is_no_time_left_no_worker_gets_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (backend, child):
        monkeypatch.setattr(module, "GRACE", 3600.0)
    (tmp_path / "slow_app.py").write_text(
        "import atexit, time\natexit.register(time.sleep, 3600)\ndef app(message, context): pass\n"
    )
    app = App(reference="slow_app:app", directory=tmp_path)
    async with _leaving_nothing():
        with trio.CancelScope() as scope:
            async with open_process_backend(app, TWO_WORKERS):
                scope.cancel()


async def test_what_an_app_has_started_ends_with_its_worker(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    async def expect_death(backend: Backend) -> None:
        with pytest.raises(WorkerDied):
            await backend.run(todo(tell=pipe))

    async with (
        open_process_backend(apps(tmp_path, "parent"), TWO_WORKERS) as backend,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(expect_death, backend)
        worker, child = map(int, (await trio.to_thread.run_sync(pipe.read_text)).split())
        os.kill(worker, signal.SIGKILL)
        await eventually(lambda: not runs(child))


async def test_a_worker_that_has_forked_is_missed_when_it_dies(tmp_path: Path) -> None:
    """What it has forked holds nothing of it that would let it seem alive."""
    (tmp_path / "forking_app.py").write_text(
        "import os, signal, time\n"
        "def app(message, context):\n"
        "    if not os.fork():\n"
        "        os.setsid()\n"
        "        time.sleep(30)\n"
        "        os._exit(0)\n"
        "    time.sleep(0.2)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    app = App(reference="forking_app:app", directory=tmp_path)
    async with open_process_backend(app, TWO_WORKERS) as backend:
        with trio.fail_after(20), pytest.raises(WorkerDied):
            await backend.run(job())


@pytest.mark.parametrize("muted", [False, True])
async def test_what_an_app_prints_is_seen_unless_it_is_muted(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    muted: bool,
) -> None:
    caplog.set_level("INFO")
    config = {**TWO_WORKERS, "mute_logging": muted}
    async with open_process_backend(apps(tmp_path, "steps"), config) as backend:
        caplog.clear()  # of what is said where an app takes long to load
        pid = pid_of(await backend.run(todo(say="a word from the app")))
    words = [f"(Worker pid={pid}) {said}" for said in ("a word from the app", "a cry from below")]
    assert caplog.messages == ([] if muted else words)
    # Only the log knows how it shows what: nothing gets past it.
    assert capfd.readouterr() == ("", "")


_TALKATIVE = r"""
import os

def app(message, context):
    os.write(1, b"10%\r50%\r100%\n\n\x1b[31mred\x1b[0m\r\n")
    print("x" * 300_000)
    print("not flushed")
    os.write(2, b"last words")
    os.kill(os.getpid(), 9)
"""


async def test_what_a_worker_says_before_it_dies_is_logged_line_by_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "talkative_app.py").write_text(_TALKATIVE)
    app = App(reference="talkative_app:app", directory=tmp_path)
    async with open_process_backend(app, TWO_WORKERS) as backend:
        caplog.clear()
        with pytest.raises(WorkerDied):
            await backend.run(job())
        said = [message.partition(") ")[2] for message in caplog.messages]
    assert [*said[:2], *said[-2:]] == ["100%", "red", "not flushed", "last words"]
    # A line may be as long as an app likes, and is kept in parts.
    assert sum(map(len, said[2:-2])) == 300_000
    assert len(said[2:-2]) > 1


@pytest.mark.parametrize(
    ("resources", "workers"),
    [
        ({}, usable_cpus()),
        ({"num_cpus": 1, "num_gpus": 0.0}, usable_cpus()),
        ({"num_cpus": 0.5}, 2 * usable_cpus()),
        ({"num_cpus": usable_cpus()}, 1),
        ({"num_cpus": 10_000}, 1),
    ],
)
def test_workers_share_the_cpus(resources: dict[str, Any], workers: int) -> None:
    assert ProcessSettings.read({"client_resources": resources, "tensorflow": 0}).workers == workers


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"client_resources": {"num_gpus": 0.5}}, "num_gpus is 0.5.* use --backend ray"),
        ({"client_resources": {"num_cpus": 0}}, "num_cpus must be a number above 0"),
        ({"client_resources": {"num_cpus": True}}, "num_cpus must be a number above 0"),
        ({"client_resources": {"num_cpus": float("nan")}}, "num_cpus must be a number above 0"),
        ({"client_resources": {"num_gpus": "1"}}, "num_gpus must be a number"),
        ({"client_resources": {"memory": 1}}, "client_resources.memory is nothing"),
        ({"client_resources": 2}, "client_resources must be an object"),
        ({"init_args": {}}, "init_args .* Ray's"),
        ({"typo": 1, "client_resources": {"num_cpus": -1}}, "typo .*; client_resources.num_cpus"),
    ],
)
async def test_settings_that_cannot_be_used_are_told(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        async with open_process_backend(apps(tmp_path, "pid"), config):
            raise AssertionError("it opened")


async def test_a_large_model_costs_no_memory_for_each_node(tmp_path: Path) -> None:
    program = Path(__file__).with_name("programs") / "memory.py"
    path = os.pathsep.join(sys.path)
    ran = await trio.run_process(
        [sys.executable, program, tmp_path],
        capture_stdout=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    # Sent through pipes, the jobs under way would make it 64 MiB.
    assert int(ran.stdout) < 8 << 20
