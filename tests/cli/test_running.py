"""A SuperLink as a process of its own: signals, exit status, and what it says in the end."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import atexit, os, signal, sys
from importlib.abc import MetaPathFinder
from superlink_trio.cli import running
from superlink_trio.logs import rendering
from superlink_trio.config.address import Address
from superlink_trio.config import CannotStart, ConfigError, ConfigErrors, SuperLinkConfig

mode = sys.argv[1]
signal.alarm(30)  # so that a hang ends as a failure


def say(word):
    print(word, flush=True)


class SignalWhileImporting(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "trio":
            os.kill(os.getpid(), int(mode.partition("=")[2]))
        return None


def load():
    import trio

    class Link:
        driver_address = Address("127.0.0.1", 1)
        fleet_address = flower_address = admin_address = None
        control_address = control_grpc_address = None

        async def reload(self, config=None):
            say("reloading")

    async def serve(control):
        await control.stopping.wait()
        say("stopping")
        if mode == "stubborn":
            await control.cancelled.wait()
        say("cut short" if control.cancelled.is_set() else "finished")

    async def runner(config, *, control, task_status):
        say("starting")
        if mode == "slow start":
            await serve(control)
            return
        if mode == "slow end of a start":
            await control.cancelled.wait()
            say("start cut short")
            return
        if mode.startswith("bind"):
            try:
                await trio.open_tcp_listeners(int(mode.partition("=")[2]), host="127.0.0.1")
            except OSError as error:
                error.add_note("the Driver API on 127.0.0.1")
                raise ExceptionGroup("children", [ExceptionGroup("child", [error])]) from None
        if mode == "bug":
            raise ExceptionGroup("children", [OSError(28, "Disk full"), RuntimeError("oh")])
        if mode == "bad app":
            raise ExceptionGroup("child", [CannotStart("no app", "Traceback\\n  a \\x1b[0m line")])
        if mode == "bad config":
            raise ConfigErrors("bad", [ConfigError("is bad", "hold")])
        task_status.started(Link())
        say("ready")
        if mode == "breaks":
            raise OSError(28, "Disk full")
        if mode == "ends":
            return
        await serve(control)

    if mode.startswith("signal in load"):
        os.kill(os.getpid(), int(mode.partition("=")[2]))
    return runner


rendering.configure("info", "text")
if mode.startswith("signal in import"):
    sys.meta_path.insert(0, SignalWhileImporting())
status = running.run(load, SuperLinkConfig(insecure=True))
say("ended")
if mode == "long end":
    # Exit functions of libraries run even after the last line.
    atexit.register(sys.stdin.readline)
    atexit.register(say, "leaving")
sys.exit(status)
"""


class Running:
    """A program, and what it says on standard output and standard error."""

    def __init__(self, words: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env={"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def until(self, word: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        pytest.fail(f"never said {word!r}")

    def until_logged(self, text: str) -> str:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line:
                return line
        pytest.fail(f"never logged {text!r}")

    def end(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out.split("\n")[:-1], err


Start = Callable[[str | list[str]], Running]


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Running] = []

    def begin(what: str | list[str]) -> Running:
        """Start a program, or the one under a fake SuperLink in a mode."""
        running.append(Running(["-c", PROGRAM, what] if isinstance(what, str) else what))
        return running[-1]

    yield begin
    for one in running:
        one.process.kill()
        one.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_gracefully(start: Start, number: signal.Signals) -> None:
    program = start("serve")
    program.until("ready")
    program.process.send_signal(number)
    status, said, log = program.end()
    assert (status, said) == (0, ["stopping", "finished", "ended"])
    assert "ready: Driver API on 127.0.0.1:1 without TLS, " in log
    last = log.splitlines()[-1]
    assert re.search(r"info     stopped, \d+\.\d s after the first signal$", last)
    assert f"{number.name}: stopping" in log


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (signal.SIGTERM, signal.SIGINT, 130),
        (signal.SIGINT, signal.SIGTERM, 143),
    ],
)
def test_the_second_signal_stops_at_once(
    start: Start, first: signal.Signals, second: signal.Signals, status: int
) -> None:
    program = start("stubborn")
    program.until("ready")
    program.process.send_signal(first)
    program.until("stopping")
    program.process.send_signal(second)
    status_then, said, log = program.end()
    assert (status_then, said) == (status, ["cut short", "ended"])
    assert log.splitlines()[-1].endswith("s after the first signal")


def test_a_signal_before_ready_undoes_the_start(start: Start) -> None:
    program = start("slow start")
    program.until("starting")
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[:2] == (0, ["stopping", "finished", "ended"])


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_before_ready_stops_at_once(
    start: Start, number: signal.Signals, status: int
) -> None:
    program = start("slow end of a start")
    program.until("starting")
    program.process.send_signal(signal.SIGTERM)
    program.until_logged("stopping")
    program.process.send_signal(number)
    assert program.end()[:2] == (status, ["start cut short", "ended"])


@pytest.mark.parametrize(
    ("late", "status"),
    [
        ([], 0),
        ([signal.SIGHUP], 0),
        ([signal.SIGTERM], 143),
        ([signal.SIGINT], 130),
        ([signal.SIGHUP, signal.SIGTERM, signal.SIGTERM], 143),
    ],
)
def test_signals_are_minded_until_the_process_is_gone(
    start: Start, late: list[signal.Signals], status: int
) -> None:
    program = start("long end")
    program.until("ready")
    program.process.send_signal(signal.SIGTERM)
    program.until("leaving")
    for number in late:
        program.process.send_signal(number)
    assert program.end()[0] == status


def test_the_status_of_a_failure_is_not_lost_at_the_end(start: Start) -> None:
    program = start("breaks")
    program.until("ended")
    assert program.end()[0] == 1


def test_a_hangup_while_stopping_is_ignored(start: Start) -> None:
    program = start("stubborn")
    program.until("ready")
    program.process.send_signal(signal.SIGTERM)
    program.until("stopping")
    program.process.send_signal(signal.SIGHUP)
    program.until_logged("SIGHUP: nothing is read again")
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[:2] == (143, ["cut short", "ended"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_first_moments_starts_nothing(start: Start, number: int) -> None:
    assert start(f"signal in import={number:d}").end()[:2] == (0, ["ended"])


def test_a_signal_while_the_rest_is_imported_is_not_lost(start: Start) -> None:
    program = start(f"signal in load={signal.SIGTERM:d}")
    status, said, _ = program.end()
    assert status == 0
    assert said[-1] == "ended"


@pytest.mark.parametrize("moment", ["signal in import", "signal in load"])
def test_a_hangup_in_the_first_moments_is_survived(start: Start, moment: str) -> None:
    program = start(f"{moment}={signal.SIGHUP:d}")
    program.until("reloading")
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 0


def test_a_hangup_reloads(start: Start) -> None:
    program = start("serve")
    program.until("ready")
    program.process.send_signal(signal.SIGHUP)
    program.until("reloading")
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[:2] == (0, ["stopping", "finished", "ended"])


def test_a_quit_shows_the_tasks_and_stops_nothing(start: Start) -> None:
    program = start("serve")
    program.until("ready")
    program.process.send_signal(signal.SIGQUIT)
    program.until_logged("SIGQUIT: the tasks, and where they wait")
    assert ".serve:" in program.until_logged("superlink_trio.cli.running._run: ")
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[:2] == (0, ["stopping", "finished", "ended"])


def test_a_superlink_that_ends_by_itself_is_a_clean_end(start: Start) -> None:
    assert start("ends").end()[:2] == (0, ["starting", "ready", "ended"])


def test_a_taken_port_is_one_readable_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        status, said, log = start(f"bind={taken.getsockname()[1]}").end()
    assert (status, said) == (1, ["starting", "ended"])
    line, last = log.splitlines()
    assert re.search(r"stopped, \d+\.\d s after it was started$", last)
    assert re.search(r"error +could not start: .*in use; the Driver API on 127\.0\.0\.1$", line)


def test_a_config_refused_later_is_a_usage_error(start: Start) -> None:
    status, _, log = start("bad config").end()
    assert status == 2
    line, _ = log.splitlines()
    assert line.endswith("could not start: hold: is bad")


def test_an_app_that_is_not_loaded_is_told_by_its_own_traceback(start: Start) -> None:
    status, _, log = start("bad app").end()
    assert status == 1
    first, *traceback, _ = log.splitlines()
    assert first.endswith("error    could not start: no app")
    assert traceback == ["Traceback", "  a \\x1b[0m line"]


def test_a_bug_has_its_traceback(start: Start) -> None:
    status, _, log = start("bug").end()
    assert status == 1
    assert log.count("Traceback") == 1
    assert "RuntimeError: oh" in log
    assert "error    could not start: Disk full" in log


def test_a_failure_while_running_has_its_traceback(start: Start) -> None:
    status, _, log = start("breaks").end()
    assert status == 1
    assert "critical a part failed beyond repair" in log
    assert "OSError: [Errno 28] Disk full" in log
    assert "stopped, " in log.splitlines()[-1]


SUPERLINK = ["-m", "superlink_trio", "--insecure"]
SUPERLINK += ["--driver-api-address", "127.0.0.1:0", "--fleet-api-address", "127.0.0.1:0"]


@pytest.mark.parametrize(
    ("number", "statuses"),
    [(signal.SIGTERM, {0, 143}), (signal.SIGINT, {0, 130}), (signal.SIGHUP, {0})],
)
@pytest.mark.parametrize("later", [0, 0.02])
def test_no_signal_kills_in_the_last_moments(
    start: Start, number: signal.Signals, statuses: set[int], later: float
) -> None:
    program = start([*SUPERLINK, "--log-level", "debug"])
    program.until_logged("ready: ")
    program.process.send_signal(signal.SIGTERM)
    program.until_logged("superlink stopped")
    time.sleep(later)
    program.process.send_signal(number)
    assert program.end()[0] in statuses


# The command alone, with ports that are free: those by default may be taken on this machine.
ALONE = """
import sys
from superlink_trio import cli
from superlink_trio.config import places
places.DRIVER_PORT = places.GRPC_FLEET_PORT = places.REST_FLEET_PORT = 0
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("words", [[], ["--grpc-rere"], ["--rest"]])
def test_a_command_alone_serves_this_machine_only(start: Start, words: list[str]) -> None:
    program = start(["-c", ALONE, *words])
    program.until_logged("serve this machine only (127.0.0.1 and ::1): to serve others, give ")
    ready = program.until_logged("ready: ")
    ports = [int(port) for port in re.findall(r" on localhost:(\d+) \(127\.0\.0\.1:", ready)]
    assert len(ports) == 2
    assert min(ports) > 10_000, "not those by default"
    with_ipv6 = Path("/proc/net/if_inet6").exists()
    loopback = {"0100007F"} | ({"00000000000000000000000001000000"} if with_ipv6 else set())
    for port in ports:
        assert (f"and [::1]:{port})" in ready) == with_ipv6
        assert listening_on(port) == loopback
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 0


def listening_on(port: int) -> set[str]:
    """Give the addresses on which a port is listened on, as the kernel writes them (in hex)."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(address.removeprefix("0000000000000000FFFF0000"))  # IPv4 in IPv6
    return found


def test_a_start_that_fails_says_so_once(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = ["--grpc-rere-fleet-api-address", f"127.0.0.1:{port}"]
        status, _, log = start([*SUPERLINK[:-2], *words]).end()
    assert status == 1
    [line] = [line for line in log.splitlines() if " info " not in line]
    assert f"could not start: cannot listen on 127.0.0.1:{port}: Address already in use" in line
    assert line.endswith("; needed by the Fleet API")
