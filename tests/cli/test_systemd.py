"""What is told to a service manager, over a socket as systemd has one, and what it hands over."""

from __future__ import annotations

import fcntl
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.cli.arguments import read
from superlink_trio.cli.programs import DRIVER_API, SUPERLINK, Program
from superlink_trio.cli.systemd import Inherited, Manager, Sockets, adopt, take_sockets
from superlink_trio.config import Address, SuperLinkConfig, build

ROOT = Path(__file__).parents[2]
PORTS = ("--driver-api-address", "127.0.0.1:0")
REST = ("--rest", *PORTS)

# Runs a command line behind files that are moved to where systemd puts them.
ACTIVATE = """
import os, sys
files, words = sys.argv[1], sys.argv[2:]
for number, given in enumerate(files.split(","), 3):
    os.dup2(int(given), number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(files.count(",") + 1)}
os.execv(sys.executable, [sys.executable, *words])
"""


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Told:
    """The end of the service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        self._socket.settimeout(30)

    def next(self) -> dict[str, str]:
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str) -> dict[str, str]:
        while name not in (told := self.next()):
            pass
        return told

    def all(self) -> list[dict[str, str]]:
        """Give what has come so far."""
        found = []
        self._socket.setblocking(False)
        while True:
            try:
                found.append(self.next())
            except BlockingIOError:
                return found

    def nothing_comes(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self.next()
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Told]:
    abstract = request.param == "abstract"
    made = Told(f"@{uuid.uuid4()}" if abstract else str(tmp_path / "notify"))
    yield made
    made.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(
    stack: ExitStack, words: list[str], files: Sequence[int] = (), **environ: str
) -> subprocess.Popen[str]:
    """Start Python; `files` are open in it as systemd has them, by ACTIVATE."""
    if files:
        words = ["-c", ACTIVATE, ",".join(map(str, files)), *words]
    process = subprocess.Popen(
        [sys.executable, *words],
        env={"PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pass_fds=files,
    )
    stack.callback(process.communicate)
    stack.callback(process.kill)
    return process


def test_news_are_datagrams_of_lines(told: Told) -> None:
    manager = Manager.of({"NOTIFY_SOCKET": told.address})
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.ready("ready: Driver API")
    manager.reloading()
    manager.status("two\nlines")
    manager.stopping()
    assert told.next() == {"READY": "1", "STATUS": "ready: Driver API"}
    reloading = told.next()
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) < before + 60e6
    assert told.next() == {"STATUS": "two lines"}
    assert told.next() == {"STOPPING": "1", "STATUS": "stopping"}


def test_where_nobody_listens_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Manager.of({}).ready("ready")
    assert caplog.records == []


def test_a_manager_that_cannot_be_told_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = tmp_path / "gone"
    manager = Manager.of({"NOTIFY_SOCKET": str(gone)})
    manager.ready("ready")
    manager.stopping()
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert str(gone) in warning.getMessage()


@pytest.mark.parametrize("pid", [None, "mine"])
async def test_the_watchdog_is_fed_at_half_of_its_time(
    told: Told, autojump_clock: MockClock, pid: str | None
) -> None:
    environ = {"NOTIFY_SOCKET": told.address, "WATCHDOG_USEC": "30000000"}
    if pid is not None:
        environ["WATCHDOG_PID"] = str(os.getpid())
    with trio.move_on_after(61):
        await Manager.of(environ).feed()
    assert told.all() == [{"WATCHDOG": "1"}] * 5


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
async def test_a_watchdog_of_somebody_else_is_not_fed(told: Told, environ: dict[str, str]) -> None:
    await Manager.of({"NOTIFY_SOCKET": told.address, **environ}).feed()
    assert told.all() == []


def test_the_variables_are_taken_out_of_the_environment() -> None:
    environ = dict.fromkeys(("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"), "1")
    environ |= dict.fromkeys(("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"), "1")
    environ["PATH"] = "/bin"
    Manager.of(environ)
    assert take_sockets(environ) == Inherited()
    assert environ == {"PATH": "/bin"}


def test_a_superlink_tells_how_it_gets_on(told: Told, stack: ExitStack) -> None:
    words = ["-m", "superlink_trio", "--insecure", *PORTS, "--fleet-api-address", "127.0.0.1:0"]
    program = start(stack, words, NOTIFY_SOCKET=told.address, WATCHDOG_USEC="30000000")
    assert told.until("READY")["STATUS"].startswith("ready: Driver API on 127.0.0.1:")
    program.send_signal(signal.SIGHUP)
    assert told.until("RELOADING")
    assert told.until("READY")["STATUS"].startswith("ready: ")
    program.terminate()
    assert told.until("STOPPING")
    assert program.wait(30) == 0


def test_what_failed_is_told(told: Told, stack: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["-m", "superlink_trio", "--driver-api-address", f"127.0.0.1:{port}"]
        program = start(stack, words, NOTIFY_SOCKET=told.address)
        assert f"failed: cannot listen on 127.0.0.1:{port}" in told.until("STATUS")["STATUS"]
        assert program.wait(30) == 1


STALLING = """
import os, sys
from superlink_trio.cli import running
from superlink_trio.cli.systemd import Manager
from superlink_trio.config import Address, SuperLinkConfig

async def runner(config, *, control, task_status):
    import trio
    await trio.sleep(0.3)
    print("stalling", flush=True)
    sys.stdin.readline()
    await control.stopping.wait()

sys.exit(running.run(lambda: runner, SuperLinkConfig(), manager=Manager.of(os.environ)))
"""


@pytest.mark.alone
def test_a_loop_that_stalls_stops_feeding(told: Told, stack: ExitStack) -> None:
    program = start(stack, ["-c", STALLING], NOTIFY_SOCKET=told.address, WATCHDOG_USEC="100000")
    assert program.stdout is not None
    assert program.stdin is not None
    assert program.stdout.readline() == "stalling\n"
    beats = told.all()
    assert len(beats) > 2
    assert told.nothing_comes(0.5)
    program.stdin.write("\n")
    program.stdin.flush()
    assert not told.nothing_comes(30)
    program.terminate()
    assert program.wait(30) == 0


def listening(stack: ExitStack, host: str = "127.0.0.1") -> socket.socket:
    return stack.enter_context(socket.create_server((host, 0)))


def handed(stack: ExitStack, *files: HasFileno) -> Sequence[int]:
    """Open files once more, away from the numbers that they are to have in a child."""
    numbers = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 50) for each in files]
    for number in numbers:
        stack.callback(os.close, number)
    return numbers


def get(port: int, path: str, client: http.client.HTTPConnection | None = None) -> tuple[int, str]:
    client = client or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", path)
    response = client.getresponse()
    text = response.read().decode()
    client.close()
    return response.status, text


def test_given_sockets_are_served_and_outlive_the_program(stack: ExitStack) -> None:
    rest, admin = listening(stack), listening(stack)
    files = handed(stack, rest, admin)
    words = ["-m", "superlink_trio", *REST]
    names = "rest-fleet-api-address:admin-address"
    first = start(stack, words, files, LISTEN_FDNAMES=names)
    # Connections wait from the first moment on, and are answered once it is ready.
    assert get(admin.getsockname()[1], "/livez") == (200, "ok\n")
    assert get(rest.getsockname()[1], "/api/v0/fleet/ping")[0] == 405
    first.terminate()
    assert first.wait(30) == 0

    between = http.client.HTTPConnection("127.0.0.1", admin.getsockname()[1], timeout=30)
    between.connect()
    second = start(stack, words, files, LISTEN_FDNAMES=names)
    assert get(0, "/livez", between) == (200, "ok\n")
    second.terminate()
    assert second.wait(30) == 0


def test_the_sockets_are_not_for_children(stack: ExitStack) -> None:
    files = handed(stack, listening(stack))
    look = (
        "import os; from superlink_trio.cli.systemd import take_sockets;"
        "[[one]] = take_sockets(os.environ).sockets.values();"
        "print(one.fileno(), os.get_inheritable(3), [n for n in os.environ if 'LISTEN' in n])"
    )
    program = start(stack, ["-c", look], files, LISTEN_FDNAMES="any")
    assert program.communicate(timeout=30)[0] == "3 False []\n"


def test_a_file_that_is_no_socket_is_a_fault(stack: ExitStack, tmp_path: Path) -> None:
    file = stack.enter_context((tmp_path / "file").open("w"))
    program = start(stack, ["-m", "superlink_trio"], handed(stack, file), LISTEN_FDNAMES="fifo")
    _, log = program.communicate(timeout=30)
    assert program.returncode == 2
    assert "systemd's file 3, 'fifo', is no socket: Socket operation on non-socket" in log


def test_sockets_for_another_process_are_left_alone() -> None:
    assert take_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == Inherited()


def adopted(
    sockets: Mapping[str, list[socket.socket]],
    *words: str,
    program: Program = SUPERLINK,
) -> tuple[Sockets, SuperLinkConfig, list[str]]:
    settings = read(program, words)
    taken = adopt(settings, Inherited(sockets), program.apis)
    config = build(settings, program.apis)
    return taken, config, settings.faults


def test_a_socket_says_what_the_address_is(stack: ExitStack) -> None:
    one = listening(stack)
    taken, config, faults = adopted({"admin-address": [one]})
    assert (taken, faults) == ({"admin_address": [one]}, [])
    assert config.admin_address == Address("127.0.0.1", one.getsockname()[1])


def test_a_socket_is_the_port_of_todays_flower(stack: ExitStack) -> None:
    one, other = listening(stack), listening(stack)
    taken, config, faults = adopted({"port": [one], "control-address": [other]})
    assert (taken, faults) == ({"host": [one], "control_address": [other]}, [])
    assert config.flower_place is not None
    assert config.flower_place.address == Address("127.0.0.1", one.getsockname()[1])
    assert config.control_address == Address("127.0.0.1", other.getsockname()[1])
    [fault] = adopted({"port": [listening(stack, "0.0.0.0")]})[2]
    assert "can be reached from other machines" in fault


def test_a_side_alone_takes_no_port_of_todays_flower(stack: ExitStack, tmp_path: Path) -> None:
    words = ("--database", str(tmp_path / "state.db"))
    [fault] = adopted({"port": [listening(stack)]}, *words, program=DRIVER_API)[2]
    assert "without driver-api or fleet-api" in fault


def test_a_socket_that_others_reach_has_to_be_secured(stack: ExitStack) -> None:
    sockets = {"rest-fleet-api-address": [listening(stack), listening(stack, "0.0.0.0")]}
    [fault] = adopted(sockets, *REST)[2]
    assert fault.startswith("systemd's socket 'rest-fleet-api-address': 0.0.0.0:")
    assert adopted(sockets, *REST, "--insecure")[2] == []


@pytest.mark.parametrize(
    ("name", "words", "problem"),
    [
        ("driver-api-address", REST, "gRPC, which opens its ports itself"),
        ("grpc-rere-fleet-api-address", (), "by --grpc-rere-fleet-api-address"),
        ("superlink-trio.socket", (), "'superlink-trio.socket' is for nothing that is known"),
        ("control-grpc-address", ("--port", "0"), "gRPC, which opens its ports itself"),
        ("", (), "FileDescriptorName="),
        ("port", ("--port", "8000"), "and --port both say"),
        ("port", ("--host", "127.0.0.1"), "and --host both say"),
        ("rest-fleet-api-address", (), "give --rest"),
        ("admin-address", ("--admin-address", "127.0.0.1:1"), "and --admin-address both say"),
        (
            "rest-fleet-api-address",
            (*REST, "--fleet-api-address", "127.0.0.1:1"),
            "and --fleet-api-address both say",
        ),
    ],
)
def test_a_socket_that_cannot_be_served_is_a_fault(
    stack: ExitStack, name: str, words: tuple[str, ...], problem: str
) -> None:
    taken, _, faults = adopted({name: [listening(stack)]}, *words)
    assert taken == {}
    assert [problem in fault for fault in faults] == [True]


def test_a_driver_api_alone_takes_no_socket_of_nodes(stack: ExitStack, tmp_path: Path) -> None:
    words = ("--database", str(tmp_path / "state.db"))
    sockets = {"rest-fleet-api-address": [listening(stack)]}
    [fault] = adopted(sockets, *words, program=DRIVER_API)[2]
    assert "none is to run" in fault


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM),
        (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_INET, socket.SOCK_STREAM),
    ],
)
def test_a_socket_of_another_kind_is_a_fault(
    stack: ExitStack, family: socket.AddressFamily, kind: socket.SocketKind
) -> None:
    one = stack.enter_context(socket.socket(family, kind))
    [fault] = adopted({"admin-address": [one]})[2]
    assert "is no TCP socket that listens" in fault
