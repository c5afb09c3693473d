from __future__ import annotations

import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from simulations import TWO_WORKERS, apps, content, job, pid_of, todo

from superlink_trio.fleet.simulation.backend import (
    App,
    AppNotLoaded,
    Backend,
    BackendDied,
    Job,
    Outcome,
    WorkerDied,
)
from superlink_trio.fleet.simulation.ray.backend import open_ray_backend
from superlink_trio.fleet.simulation.ray.frames import Cancel, Died, Frames, Message
from superlink_trio.fleet.simulation.ray.settings import Settings, fitting
from superlink_trio.fleet.simulation.ray.shipping import stage
from superlink_trio.fleet.simulation.sessions import kill_session, members


@attrs.frozen
class Opened:
    """A backend that runs in a thread of its own, so that several tests can use it."""

    backend: Backend
    token: trio.lowlevel.TrioToken

    def run(self, job: Job) -> Outcome:
        return trio.from_thread.run(self.backend.run, job, trio_token=self.token)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """Two workers that run the app `steps`."""
    app = apps(tmp_path_factory.mktemp("opened"), "steps")
    with _in_thread(lambda: open_ray_backend(app, TWO_WORKERS)) as opened:
        yield opened


@contextmanager
def _in_thread(open_backend: Callable[[], Any]) -> Iterator[Opened]:
    told: queue.Queue[Opened | BaseException] = queue.Queue()
    leave = trio.Event()

    async def run() -> None:
        async with open_backend() as backend:
            told.put(Opened(backend, trio.lowlevel.current_trio_token()))
            await leave.wait()

    def main() -> None:
        try:
            trio.run(run)
        except BaseException as error:
            told.put(error)
            raise

    thread = threading.Thread(target=main)
    thread.start()
    opened = told.get()
    if isinstance(opened, BaseException):
        raise opened
    try:
        yield opened
    finally:
        opened.token.run_sync_soon(leave.set)
        thread.join()


def _session_of(outcome: Outcome) -> int:
    """Give the session that all processes of the backend are in; its leader is the driver."""
    return os.getsid(pid_of(outcome))


def _named(session: int, name: str) -> int:
    """Find a process of a session by its name, or the driver, which leads it."""
    if name == "driver":
        return session
    [pid] = [pid for pid in members(session) if _name(pid) == name]
    return pid


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _directories() -> set[Path]:
    return {*Path("/tmp").glob("superlink-ray-*")}


@asynccontextmanager
async def _leaving_no_directory() -> AsyncIterator[None]:
    before = _directories()
    yield
    assert not _directories() - before


@pytest.mark.ray
def test_each_signal_but_the_closed_connection_is_ignored(opened: Opened) -> None:
    session = _session_of(opened.run(todo()))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(session, number)
    assert _session_of(opened.run(todo())) == session


@pytest.mark.ray
def test_it_is_in_a_session_of_its_own(opened: Opened) -> None:
    session = _session_of(opened.run(todo()))
    assert session != os.getsid(0)
    assert {"raylet", "gcs_server"} <= {_name(pid) for pid in members(session)}


@pytest.mark.ray
def test_a_worker_that_is_killed_is_replaced(opened: Opened) -> None:
    for _ in range(2):
        with pytest.raises(WorkerDied):
            opened.run(todo(die="now"))
    assert pid_of(opened.run(todo())) > 0


@pytest.mark.ray
def test_a_ray_of_our_own_has_a_token_of_its_own(opened: Opened) -> None:
    session = _session_of(opened.run(todo()))
    variables = dict(
        line.split("=", 1)
        for line in Path(f"/proc/{_named(session, 'raylet')}/environ").read_text().split("\0")
        if line
    )
    assert variables["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in variables
    token = Path(variables["RAY_AUTH_TOKEN_PATH"])
    assert token.parent in _directories()
    assert len(token.read_text()) == 64
    assert token.stat().st_mode & 0o077 == 0


@pytest.mark.ray
@pytest.mark.parametrize(
    ("victim", "told"),
    [
        ("driver", "was ended by SIGKILL"),
        # Ray may be quicker than we are, and end the driver's process with status 1.
        ("raylet", "Ray's raylet ended with status -9|ended with status 1"),
        ("gcs_server", "Ray's gcs_server ended with status -9"),
    ],
)
async def test_if_ray_dies_the_block_ends(tmp_path: Path, victim: str, told: str) -> None:
    session = 0
    async with _leaving_no_directory():
        with (
            pytest.RaisesGroup(pytest.RaisesExc(BackendDied, match=told), flatten_subgroups=True),
            trio.fail_after(30),
        ):
            async with open_ray_backend(apps(tmp_path, "pid"), TWO_WORKERS) as backend:
                session = _session_of(await backend.run(job()))
                os.kill(_named(session, victim), signal.SIGKILL)
                await trio.sleep_forever()
    assert members(session) == []


@pytest.mark.ray
def test_nothing_is_left_when_the_superlink_is_killed(tmp_path: Path) -> None:
    before = _directories()
    apps(tmp_path, "pid")
    program = f"""
import trio
from pathlib import Path
from simulations import TWO_WORKERS, App, job, pid_of
from superlink_trio.fleet.simulation.ray.backend import open_ray_backend

async def main():
    app = App(reference="simulated_apps:pid", directory=Path({str(tmp_path)!r}))
    async with open_ray_backend(app, TWO_WORKERS) as backend:
        print(pid_of(await backend.run(job())), flush=True)
        await trio.sleep_forever()

trio.run(main)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as superlink:
        assert superlink.stdout is not None
        session = os.getsid(int(superlink.stdout.readline()))
        superlink.kill()
    _eventually(lambda: not members(session))
    _eventually(lambda: not _directories() - before)


@pytest.mark.ray
async def test_cancelled_while_it_starts_it_leaves_nothing_behind(tmp_path: Path) -> None:
    pipe, never = tmp_path / "pipe", tmp_path / "never"
    os.mkfifo(pipe)
    os.mkfifo(never)
    (tmp_path / "slow_app.py").write_text(
        f"import os\nfrom pathlib import Path\n"
        f"Path({str(pipe)!r}).write_text(f'{{os.getpid()}} ')\n"
        f"Path({str(never)!r}).read_text()\n"
    )
    app = App(reference="slow_app:app", directory=tmp_path)

    async def open_it() -> None:
        async with open_ray_backend(app, TWO_WORKERS):
            raise AssertionError("it opened")

    async with _leaving_no_directory():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_it)
            session = os.getsid(int((await trio.to_thread.run_sync(pipe.read_text)).split()[0]))
            nursery.cancel_scope.cancel()
        assert members(session) == []


@pytest.mark.ray
async def test_an_app_that_ends_the_process_that_loads_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "deadly_app.py").write_text("import os\nos._exit(7)\n")
    with pytest.raises(AppNotLoaded, match="the worker that loaded it ended"):
        async with open_ray_backend(
            App(reference="deadly_app:app", directory=tmp_path), TWO_WORKERS
        ):
            raise AssertionError("it opened")


@pytest.mark.ray
async def test_more_than_ray_has_is_refused_and_told(tmp_path: Path) -> None:
    config = {"client_resources": {"num_gpus": 64, "unobtainium": 2}, "ray": {"num_cpus": 3}}
    with pytest.raises(ValueError, match=r"no node has CPU 1, GPU 64, unobtainium 2 .*\(.*CPU 3,"):
        async with open_ray_backend(apps(tmp_path, "pid"), config):
            raise AssertionError("it opened")


@pytest.mark.ray
@pytest.mark.parametrize("muted", [False, True])
async def test_what_an_app_prints_is_logged_unless_it_is_muted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, muted: bool
) -> None:
    config = {**TWO_WORKERS, "mute_logging": muted}
    with caplog.at_level("INFO", logger="superlink_trio.fleet.simulation.ray"):
        async with open_ray_backend(apps(tmp_path, "talk"), config) as backend:
            await backend.run(job())
            if muted:
                # Ray passes lines on every 0.1 s; that nothing comes can only be waited for.
                await trio.sleep(1)
            else:
                await trio.to_thread.run_sync(_eventually, lambda: "a cry" in caplog.text)
    assert ("a word from the app" in caplog.text) is not muted
    assert ("a cry from below" in caplog.text) is not muted


@pytest.fixture(scope="module")
def head_node() -> Iterator[str]:
    """A Ray of its own, as an administrator starts it, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    (directory / "token").write_text("0123456789abcdef" * 4)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(directory / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *(f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--resources"),
        *('{"licence": 1}', "--include-dashboard=false", f"--temp-dir={directory}"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        path = os.pathsep.join(filter(None, sys.path))
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            # What a worker imports has to be installed on each machine of a cluster.
            env={**os.environ, "PYTHONPATH": path},
        ) as head:
            try:
                _eventually(lambda: _listens(port))
                yield f"127.0.0.1:{port}"
            finally:
                kill_session(head.pid)
                head.wait()
                _eventually(lambda: not members(head.pid))
                shutil.rmtree(directory)


@pytest.mark.ray
async def test_an_existing_cluster_runs_the_app_without_its_data(
    tmp_path: Path, head_node: str
) -> None:
    app = apps(tmp_path, "elsewhere")
    (tmp_path / "simulated_apps.py").write_text(
        "import helpers.names\n"
        "from pathlib import Path\n"
        "from superlink_trio.clientapp import RecordSet\n"
        "def elsewhere(message, context):\n"
        "    here = Path(helpers.names.__file__).parents[1]\n"
        "    files = sorted(path.name for path in here.rglob('*') if path.is_file())\n"
        "    files = [name for name in files if not name.endswith('.pyc')]\n"
        "    found = {'here': str(here), 'files': files}\n"
        "    return message.reply(RecordSet(configs={'found': found}))\n"
    )
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "names.py").touch()
    (tmp_path / "data.npy").write_bytes(bytes(1000))
    config = {"client_resources": {"licence": 0.5}, "ray": {"address": head_node}}
    async with open_ray_backend(app, config) as backend:
        assert backend.capacity == 2
        found = content(await backend.run(job())).configs["found"]
    assert found["files"] == ["names.py", "simulated_apps.py"]
    assert found["here"] != str(tmp_path)


@pytest.mark.ray
async def test_a_cluster_outlives_those_who_use_it(tmp_path: Path, head_node: str) -> None:
    config = {"ray": {"address": head_node}}
    before = _drivers()
    with pytest.RaisesGroup(
        pytest.RaisesExc(BackendDied, match="was ended by SIGKILL"), flatten_subgroups=True
    ):
        async with open_ray_backend(apps(tmp_path, "pid"), config) as backend:
            pid = pid_of(await backend.run(job()))
            [driver] = _drivers() - before
            os.kill(driver, signal.SIGKILL)
            await trio.sleep_forever()
    # The worker of a driver that is gone ends with it.
    await trio.to_thread.run_sync(_eventually, lambda: not Path(f"/proc/{pid}/root").exists())
    async with open_ray_backend(apps(tmp_path, "pid"), config) as backend:
        assert pid_of(await backend.run(job())) != pid


@pytest.mark.ray
async def test_a_cluster_that_cannot_be_reached_is_named(tmp_path: Path, unused_port: int) -> None:
    address = f"127.0.0.1:{unused_port}"
    with pytest.raises(ConnectionError, match=f"no Ray cluster at {address}"):
        async with open_ray_backend(apps(tmp_path, "pid"), {"ray": {"address": address}}):
            raise AssertionError("it opened")


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that nobody listens on, and nobody can, for as long as the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"client_resources": {"num_cpus": 0}}, "without taking some of anything"),
        ({"client_resources": {"num_cpus": -1}}, "num_cpus must be a number, not below 0"),
        ({"client_resources": {"num_gpus": float("nan")}}, "num_gpus must be a number"),
        ({"client_resources": {"memory": True}}, "memory must be a number"),
        ({"client_resources": 2}, "client_resources must be an object"),
        ({"ray": {"adress": "auto"}}, "ray.adress is nothing"),
        ({"ray": {"address": "ray://head:10001"}}, "ray.address is 'ray://head:10001'"),
        ({"ray": {"address": "head"}}, "ray.address is 'head'"),
        ({"ray": {"address": 6379}}, "ray.address is 6379"),
        ({"ray": {"address": "auto", "num_cpus": 2}}, "num_cpus cannot be set for a cluster"),
        ({"ray": {"num_cpus": 0.5}}, "ray.num_cpus must be a whole number"),
        ({"init_args": {"resources": {"licence": "two"}}}, "ray.resources must be an object of"),
        ({"typo": 1, "actor": {"gpu": 1}}, "typo is nothing .*; actor.gpu is nothing"),
    ],
)
async def test_settings_that_cannot_be_used_are_told(
    config: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=told):
        async with open_ray_backend(apps(tmp_path, "pid"), config):
            raise AssertionError("it opened")


def test_settings_are_read_as_flower_writes_them() -> None:
    old = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "tensorflow": 0}
    assert Settings.read(old) == Settings.read({}) == Settings(resources={"CPU": 1})
    new = Settings.read(
        {
            "init_args": {"num_cpus": 4},
            "client_resources": {"num_cpus": 2, "num_gpus": 0.25, "memory": 1e9, "licence": 1},
            "actor": {"tensorflow": 1},
        }
    )
    assert new.resources == {"CPU": 2, "GPU": 0.25, "memory": 1e9, "licence": 1}
    assert (new.init, new.address, new.manners.tensorflow) == ({"num_cpus": 4}, None, True)


@pytest.mark.parametrize(
    ("takes", "nodes", "workers"),
    [
        ({"CPU": 1}, [{"CPU": 2}, {"CPU": 3}], 5),
        ({"CPU": 3}, [{"CPU": 2}, {"CPU": 4}], 1),
        ({"CPU": 1, "GPU": 0.25}, [{"CPU": 8, "GPU": 1}, {"CPU": 8}], 4),
        ({"CPU": 0.1}, [{"CPU": 0.3}], 3),
        ({"GPU": 1}, [{"CPU": 64}], 0),
        ({"CPU": 1}, [], 0),
    ],
)
def test_a_worker_fits_on_one_node(
    takes: dict[str, float], nodes: list[dict[str, float]], workers: int
) -> None:
    assert fitting(takes, nodes) == workers


def test_of_an_app_its_python_files_are_shipped(tmp_path: Path) -> None:
    for path in (
        "app.py",
        "package/part.py",
        "package/weights.bin",
        "data/train.csv",
        ".git/hook.py",
        "env/pyvenv.cfg",
        "env/lib/module.py",
    ):
        file = tmp_path / "app" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    staged = stage(tmp_path / "app", tmp_path / "staged")
    files = {str(file.relative_to(staged)): file for file in staged.rglob("*") if file.is_file()}
    assert {name: file.read_text() for name, file in files.items()} == {
        "app.py": "app.py",
        "package/part.py": "package/part.py",
    }


@given(
    messages=st.lists(
        st.builds(Died, st.integers(0), st.text()) | st.builds(Cancel, st.integers(0)), max_size=8
    ),
    size=st.integers(1, 40),
)
def test_frames_arrive_whole_however_they_are_cut(messages: list[Message], size: int) -> None:
    async def travel() -> list[Message]:
        left, right = trio.testing.lockstep_stream_pair()
        sender, receiver = Frames(left), Frames(right)
        for message in messages:
            sender.send(message)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sender.pump)
            received = [await receiver.receive() for _ in messages]
            nursery.cancel_scope.cancel()
        return received

    assert trio.run(travel) == messages


async def test_a_frame_that_is_cut_short_is_the_end() -> None:
    left, right = trio.testing.memory_stream_pair()
    Frames(left).send(Cancel(1))
    await left.send_all(b"\0\0\0\x09half")
    await left.aclose()
    with pytest.raises(trio.EndOfChannel):
        await Frames(right).receive()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _drivers() -> set[int]:
    """Give those of this process's children that hold Ray."""
    listed = Path("/proc/self/task").glob("*/children")
    children = [int(pid) for file in listed for pid in file.read_text().split()]
    return {pid for pid in children if "ray.driver" in Path(f"/proc/{pid}/cmdline").read_text()}


def _eventually(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Wait for what another process does, which has no clock that a test could drive."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.02)
