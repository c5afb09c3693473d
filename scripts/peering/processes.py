"""Programs as processes: what they write, what they use, how they end; SuperLinks among them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from superlink_trio.processes.sessions import kill_session

ROOT = Path(__file__).resolve().parents[2]
ANY_PORT = "127.0.0.1:0"
OURS = (sys.executable, "-m", "superlink_trio")
# The PYTHONPATH with which this checkout is run, whatever else is installed.
CHECKOUT = f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"

_ENVIRONMENT = {**os.environ, "PYTHONUNBUFFERED": "1", "FLWR_TELEMETRY_ENABLED": "0"}
_PATIENCE = 60
_TICKS = os.sysconf("SC_CLK_TCK")


class Misbehaved(Exception):
    """A program did not do what is needed of it."""


class Program:
    """A process and every line it has written so far, standard output and error alike."""

    def __init__(self, name: str, process: trio.Process) -> None:
        self.name = name
        self.process = process
        self.lines: list[str] = []
        self._ended = False
        self._news = trio.Event()

    async def read(self) -> None:
        """Collect what the process writes, until it has ended."""
        rest = b""
        if self.process.stdout is not None:
            async for chunk in self.process.stdout:
                *complete, rest = (rest + chunk).split(b"\n")
                self.lines += [line.decode(errors="replace") for line in complete]
                self._notify()
        self.lines.append(rest.decode(errors="replace"))
        await self.process.wait()
        self._ended = True
        self._notify()

    async def write(self, text: str) -> None:
        """Put text on the process's standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def line(self, pattern: str, *, nth: int = 1) -> str:
        """Wait for the nth line in which the pattern is found.

        Raises Misbehaved when the process ends without it.
        """
        while True:
            news = self._news
            found = [line for line in self.lines if re.search(pattern, line)]
            if len(found) >= nth:
                return found[nth - 1]
            if self._ended:
                raise self.ended(f"without line {nth} of {pattern!r}")
            await news.wait()

    async def report(self, key: str) -> dict[str, Any]:
        """Wait for a line that is a JSON object with this key."""
        return dict(json.loads(await self.line(rf'^{{.*"{key}":')))

    async def end(self) -> int:
        """Wait for the process to end; gives its exit status, negative for a signal."""
        while not self._ended:
            await self._news.wait()
        return await self.process.wait()

    async def terminate(self, by: signal.Signals = signal.SIGTERM) -> float:
        """Ask it to stop; give the seconds until the process has ended.

        Raises Misbehaved when it has not ended after a minute.
        """
        start = time.monotonic()
        self.process.send_signal(by)
        with trio.move_on_after(_PATIENCE):
            await self.process.wait()
            return time.monotonic() - start
        raise Misbehaved(f"{self.name} has not ended a minute after {by.name}")

    async def listens(self, address: str) -> None:
        """Wait until it accepts connections there. Raises Misbehaved when it ends instead."""
        host, _, port = address.rpartition(":")
        with trio.fail_after(_PATIENCE):
            while True:
                try:
                    socket.create_connection((host, int(port))).close()
                except OSError:
                    if self._ended:
                        raise self.ended("before it listened") from None
                    await trio.sleep(0.002)
                else:
                    return

    def ended(self, how: str) -> Misbehaved:
        """Say that it has ended, with its last words."""
        last = "; ".join(line for line in self.lines[-4:] if line) or "it said nothing"
        return Misbehaved(f"{self.name} ended {how}, with status {self.process.returncode}: {last}")

    def resident(self) -> int:
        """Give the bytes of memory it has now."""
        return _memory(self.process.pid, "VmRSS")

    def peak(self) -> int:
        """Give the most bytes of memory it has had so far."""
        return _memory(self.process.pid, "VmHWM")

    def resident_with_children(self) -> int:
        """Give the bytes of memory it has now, and the processes that it started, summed up."""
        return self.resident() + sum(_memory(child, "VmRSS") for child in self.children())

    def children(self) -> list[int]:
        """Give the ids of the processes that it started, in the order of their start."""
        return _children(self.process.pid)

    def cpu_seconds(self) -> float:
        """Give the processor time it has used so far, in its own code and in the kernel's."""
        return _processor_time(self.process.pid)

    def cpu_seconds_with_children(self) -> float:
        """Give the processor time that it and the processes that it started have used so far."""
        return processor_time_of_all(self.process.pid)

    async def quiet(self) -> None:
        """Wait until it has done next to nothing for half a second."""
        used, idle = self.cpu_seconds(), 0
        while idle < 2:
            await trio.sleep(0.25)
            before, used = used, self.cpu_seconds()
            idle = idle + 1 if used - before < 0.02 else 0

    async def idle_cpu(self, seconds: float) -> float:
        """Watch it for a while; give the share of one core that it uses, in percent."""
        start, used = time.monotonic(), self.cpu_seconds()
        await trio.sleep(seconds)
        return 100 * (self.cpu_seconds() - used) / (time.monotonic() - start)

    def _notify(self) -> None:
        self._news.set()
        self._news = trio.Event()


def processor_time_of_all(pid: int) -> float:
    """Give the seconds that a process and those that it started have used, ended ones too."""
    used = 0.0
    for child in _children(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            used += _processor_time(child)
    return used + _processor_time(pid, ended_children=True)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def _processor_time(pid: int, *, ended_children: bool = False) -> float:
    # The second field is the program's name in brackets, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if ended_children else 13])) / _TICKS


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise Misbehaved(f"/proc tells no {name} of process {pid}")


class Launch(Protocol):
    """Start a program of this name, with more variables in its environment."""

    async def __call__(self, name: str, *command: str | Path, **environment: str) -> Program: ...


@asynccontextmanager
async def launching(*, silent: bool = False, sessions: bool = False) -> AsyncIterator[Launch]:
    """Give the block a way to start programs; none outlives it. What silent ones write is lost.

    With `sessions` each leads a session, and what it has started ends with it.
    """
    programs: list[Program] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def launch(name: str, *command: str | Path, **environment: str) -> Program:
            process = await trio.lowlevel.open_process(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if silent else subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**_ENVIRONMENT, **environment},
                start_new_session=sessions,
            )
            programs.append(Program(name, process))
            nursery.start_soon(programs[-1].read)
            return programs[-1]

        try:
            yield launch
        except Exception as error:
            # Raised below: it is the block's, not one of several of a nursery.
            failure = error
        finally:
            for program in programs:
                program.process.kill()
                if sessions:
                    kill_session(program.process.pid)
            # What was killed ends at once, in a cancelled block too. Its children may take longer.
            with trio.CancelScope(shield=True):
                for program in programs:
                    await program.process.wait()
            with trio.move_on_after(1, shield=True):
                for program in programs:
                    await program.end()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


@asynccontextmanager
async def running(
    name: str, *command: str | Path, silent: bool = False, **environment: str
) -> AsyncIterator[Program]:
    """Run a program, which imports this checkout if any, for as long as the block."""
    async with launching(silent=silent) as launch:
        yield await launch(name, *command, **{"PYTHONPATH": CHECKOUT, **environment})


async def output(
    *command: str | Path, seconds: float, stderr: int | None = None, **environment: str
) -> str:
    """Run a program of this checkout to its end; give what it writes.

    Raises Misbehaved when it fails, and trio.TooSlowError when it takes longer than `seconds`.
    """
    with trio.fail_after(seconds):
        done = await trio.run_process(
            command,
            check=False,
            capture_stdout=True,
            stderr=stderr,
            env={**_ENVIRONMENT, "PYTHONPATH": CHECKOUT, **environment},
        )
    if done.returncode:
        what = " ".join(map(str, command))
        raise Misbehaved(f"{what} ended with status {done.returncode}: {done.stdout.decode()}")
    return done.stdout.decode()


@attrs.frozen
class SuperLink:
    """A SuperLink that serves, and where. One with simulated nodes has no Fleet API."""

    program: Program
    driver: str
    fleet: str
    ca: Path | None = None
    """The certificate that clients have to trust, if it speaks TLS."""

    @property
    def url(self) -> str:
        """Where clients find its Fleet API if that is REST."""
        return f"{'http' if self.ca is None else 'https'}://{self.fleet}"

    @property
    def client_options(self) -> list[str | Path]:
        """How a Flower program is told to connect, but for the address."""
        return ["--insecure"] if self.ca is None else ["--root-certificates", self.ca]


async def start_superlink(
    launch: Launch,
    *options: str | Path,
    driver: str = ANY_PORT,
    fleet: str = ANY_PORT,
    transport: str = "grpc-rere",
    ca: Path | None = None,
    python: str | Path = sys.executable,
    **environment: str,
) -> SuperLink:
    """Start a SuperLink of ours with its log in JSON; it serves when this returns.

    With `ca` it speaks TLS, and the options have to name its certificates. `python` runs it.
    """
    program = await launch(
        "SuperLink",
        *(python, *OURS[1:], "--log-format", "json", *(["--insecure"] if ca is None else [])),
        *("--driver-api-address", driver),
        *("--fleet-api-type", transport, "--fleet-api-address", fleet),
        *options,
        **environment,
    )
    ready = await program.report("fleet_address")
    return SuperLink(program, ready["driver_address"], ready["fleet_address"], ca)


def free_address() -> str:
    """Give an address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


def lines_of(log: Sequence[str]) -> list[dict[str, Any]]:
    """Read a log in JSON; what is no JSON (grpc's C++, the interpreter) is an event by itself."""
    events = []
    for line in filter(None, log):
        try:
            events.append(dict(json.loads(line)))
        except ValueError:
            events.append({"event": line})
    return events
