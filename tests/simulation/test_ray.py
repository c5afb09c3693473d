from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from simulations import (
    TWO_WORKERS,
    Elsewhere,
    apps,
    content,
    elsewhere,
    eventually,
    job,
    pid_of,
    todo,
)

from superlink_trio.processes.sessions import kill_session, members
from superlink_trio.simulation.backend import (
    App,
    AppNotLoaded,
    BackendDied,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.ray.backend import open_ray_backend
from superlink_trio.simulation.ray.protocol import Cancel, Died, Frames, Message
from superlink_trio.simulation.ray.settings import Settings, fitting
from superlink_trio.simulation.ray.shipping import stage

# They share a Ray, which only tests of one process can.
pytestmark = pytest.mark.xdist_group("Ray of test_ray")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Two workers that run the app `steps`."""
    app = apps(tmp_path_factory.mktemp("opened"), "steps")
    with elsewhere(lambda: open_ray_backend(app, TWO_WORKERS)) as opened:
        yield opened


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the Rays of a test have their files, and no others have. Its path is a short one."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


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


@pytest.mark.ray
def test_each_signal_but_the_closed_connection_is_ignored(opened: Elsewhere) -> None:
    session = _session_of(opened.run_here(todo()))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(session, number)
    assert _session_of(opened.run_here(todo())) == session


@pytest.mark.ray
def test_it_is_in_a_session_of_its_own(opened: Elsewhere) -> None:
    session = _session_of(opened.run_here(todo()))
    assert session != os.getsid(0)
    assert {"raylet", "gcs_server"} <= {_name(pid) for pid in members(session)}


@pytest.mark.ray
def test_a_worker_that_is_killed_is_replaced(opened: Elsewhere) -> None:
    for _ in range(2):
        with pytest.raises(WorkerDied):
            opened.run_here(todo(die="now"))
    assert pid_of(opened.run_here(todo())) > 0


@pytest.mark.ray
def test_a_ray_of_our_own_has_a_token_of_its_own(opened: Elsewhere) -> None:
    session = _session_of(opened.run_here(todo()))
    variables = dict(
        line.split("=", 1)
        for line in Path(f"/proc/{_named(session, 'raylet')}/environ").read_text().split("\0")
        if line
    )
    assert variables["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in variables
    token = Path(variables["RAY_AUTH_TOKEN_PATH"])
    assert token.parent.name.startswith("superlink-vce-")
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
async def test_if_ray_dies_the_block_ends(
    tmp_path: Path, folder: Path, victim: str, told: str
) -> None:
    session = 0
    with (
        pytest.RaisesGroup(pytest.RaisesExc(BackendDied, match=told), flatten_subgroups=True),
        trio.fail_after(120),
    ):
        async with open_ray_backend(apps(tmp_path, "pid"), TWO_WORKERS) as backend:
            session = _session_of(await backend.run(job()))
            os.kill(_named(session, victim), signal.SIGKILL)
            await trio.sleep_forever()
    assert members(session) == []
    assert list(folder.iterdir()) == []


_SUPERLINK = """
import sys, trio
from pathlib import Path
from simulations import TWO_WORKERS, App, job, pid_of
from superlink_trio.simulation.ray.backend import open_ray_backend

async def main(folder):
    app = App(reference="simulated_apps:pid", directory=Path(folder))
    async with open_ray_backend(app, TWO_WORKERS) as backend:
        print(pid_of(await backend.run(job())), flush=True)
        await trio.sleep_forever()

trio.run(main, sys.argv[1])
"""


@pytest.mark.ray
async def test_nothing_is_left_when_the_superlink_is_killed(tmp_path: Path, folder: Path) -> None:
    with _superlink(tmp_path) as (superlink, session):
        superlink.kill()
        await eventually(lambda: not members(session))
        await eventually(lambda: not list(folder.iterdir()))


@pytest.mark.ray
async def test_what_is_left_when_both_processes_are_killed_goes_with_the_next_start(
    tmp_path: Path, folder: Path
) -> None:
    with _superlink(tmp_path) as (superlink, session):
        os.kill(session, signal.SIGSTOP)
        superlink.kill()
        superlink.wait()
        kill_session(session)
        await eventually(lambda: not members(session))
    [left] = folder.iterdir()

    async def open_again() -> None:
        async with open_ray_backend(apps(tmp_path, "pid"), TWO_WORKERS):
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_again)
        await eventually(lambda: not left.exists())
        nursery.cancel_scope.cancel()
    assert list(folder.iterdir()) == []


@contextmanager
def _superlink(apps_folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has opened a backend, and the session of its Ray. Both are killed at last."""
    apps(apps_folder, "pid")
    with subprocess.Popen(
        [sys.executable, "-c", _SUPERLINK, str(apps_folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as superlink:
        assert superlink.stdout is not None
        session = os.getsid(int(superlink.stdout.readline()))
        try:
            yield superlink, session
        finally:
            superlink.kill()
            kill_session(session)


@pytest.mark.ray
async def test_cancelled_while_it_starts_it_leaves_nothing_behind(
    tmp_path: Path, folder: Path
) -> None:
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

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_it)
        session = os.getsid(int((await trio.to_thread.run_sync(pipe.read_text)).split()[0]))
        nursery.cancel_scope.cancel()
    assert members(session) == []
    assert list(folder.iterdir()) == []


@pytest.mark.ray
def test_a_ray_that_takes_too_long_to_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    from superlink_trio.simulation.ray import driver

    # In words of Ray's own, by which alone it can be told from what trying again does not mend.
    failures = [Exception("The current node timed out during startup. This could")] * 2
    ended = []

    def init(**settings: object) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    driver._start()
    assert len(ended) == 2
    failures += [Exception("no such resource")]
    with pytest.raises(Exception, match="no such resource"):
        driver._start()


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
async def test_what_an_app_prints_is_logged(
    opened: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="superlink_trio.simulation.ray"):
        await opened.run(todo(say="a word from the app"))
        told = ("a word from the app", "a cry from below")
        # The two come by different ways: either may be the first.
        await eventually(lambda: all(text in caplog.text for text in told))


@pytest.mark.ray
async def test_what_an_app_prints_is_not_logged_where_it_is_muted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = {**TWO_WORKERS, "mute_logging": True}
    with caplog.at_level("INFO", logger="superlink_trio.simulation.ray"):
        async with open_ray_backend(apps(tmp_path, "steps"), config) as backend:
            await backend.run(todo(say="a word from the app"))
            # Ray passes lines on every 0.1 s; that nothing comes can only be waited for.
            await trio.sleep(1)
    assert "a word from the app" not in caplog.text
    assert "a cry from below" not in caplog.text


@pytest.fixture(scope="module")
def head_node() -> Iterator[str]:
    """A Ray of its own, as an administrator starts it, and its address."""
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    (directory / "token").write_text("0123456789abcdef" * 4)
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(directory / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--port=0", "--node-ip-address=127.0.0.1", "--num-cpus=2", "--resources"),
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
            address = directory / "ray_current_cluster"
            try:
                _eventually(lambda: address.exists() and address.read_text() != "")
                _eventually(lambda: _listens(address.read_text()))
                yield address.read_text()
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
    await eventually(lambda: not Path(f"/proc/{pid}/root").exists())
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
    assert (new.init, new.address, new.worker.tensorflow) == ({"num_cpus": 4}, None, True)


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


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _drivers() -> set[int]:
    """Give those of this process's children that hold Ray."""
    listed = Path("/proc/self/task").glob("*/children")
    children = [int(pid) for file in listed for pid in file.read_text().split()]
    return {pid for pid in children if "ray.driver" in Path(f"/proc/{pid}/cmdline").read_text()}


def _eventually(condition: Callable[[], bool], within: float = 60.0) -> None:
    """Wait for what another process does, which has no clock that a test could drive."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.02)
