"""The processes of a measurement: the SuperLinks of both sides, and the loads put on them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

ROOT = Path(__file__).resolve().parents[2]

# What is measured is this checkout, whatever else is installed.
_ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}",
    "PYTHONUNBUFFERED": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}
_TICKS = os.sysconf("SC_CLK_TCK")


class FailedError(Exception):
    """A process did not do what the measurement needs."""


@attrs.frozen
class Side:
    """One of the two SuperLinks that are compared, and how it is started."""

    name: str
    command: tuple[str | Path, ...]


OURS = Side("ours", (sys.executable, "-m", "superlink_trio"))


def reference(python: Path) -> Side:
    """Give the SuperLink that is installed beside this interpreter."""
    return Side("reference", (python.with_name("flower-superlink"),))


@attrs.frozen
class Server:
    """A process that is measured."""

    process: trio.Process

    def resident(self) -> int:
        """Give the bytes of memory it has now."""
        return _memory(self.process.pid, "VmRSS")

    def peak(self) -> int:
        """Give the most bytes of memory it has had so far."""
        return _memory(self.process.pid, "VmHWM")

    def resident_with_children(self) -> int:
        """Give the bytes of memory it has now, and the processes that it started, summed up."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        children = " ".join(task.read_text() for task in tasks.glob("*/children")).split()
        return self.resident() + sum(_memory(int(child), "VmRSS") for child in children)

    def cpu_seconds(self) -> float:
        """Give the processor time it has used so far, in its own code and in the kernel's."""
        # The second field is the program's name in brackets, which may hold spaces.
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

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

    async def terminate(self, by: signal.Signals = signal.SIGTERM) -> float:
        """Ask it to stop; give the seconds until the process has ended.

        Raises FailedError when it has not ended after a minute.
        """
        start = time.monotonic()
        self.process.send_signal(by)
        with trio.move_on_after(60) as patience:
            await self.process.wait()
        if patience.cancelled_caught:
            raise FailedError(f"it has not ended a minute after {by.name}")
        return time.monotonic() - start


def _memory(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise FailedError(f"/proc tells no {name} of process {pid}")


@attrs.frozen
class SuperLink(Server):
    """A SuperLink that serves. One with simulated nodes has no Fleet API."""

    driver: str
    fleet: str
    seconds_to_listen: float


@asynccontextmanager
async def running(
    command: Sequence[str | Path],
    *,
    stdout: int | None = None,
    stderr: int | None = None,
    environment: Mapping[str, str] = _ENVIRONMENT,
) -> AsyncIterator[trio.Process]:
    """Run a process that does not outlive the block, however the block is left."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment
    )
    try:
        yield process
    finally:
        process.kill()
        # What was killed ends at once.
        with trio.CancelScope(shield=True):
            await process.wait()


@asynccontextmanager
async def superlink(
    side: Side,
    *options: str | Path,
    log: Path,
    fleet_api: str = "grpc-rere",
    security: Sequence[str | Path] = ("--insecure",),
) -> AsyncIterator[SuperLink]:
    """Run a SuperLink on free ports for as long as the block; it listens when the block begins.

    `security`: the options that say whether, and with which certificates, it speaks TLS.
    Raises FailedError with the end of its log when it ends instead.
    """
    driver, fleet = free_address(), free_address()
    addresses = ("--driver-api-address", driver, "--fleet-api-address", fleet)
    start = time.monotonic()
    with log.open("wb") as output:
        command = (*side.command, *security, "--fleet-api-type", fleet_api, *addresses)
        descriptor = output.fileno()
        async with running((*command, *options), stdout=descriptor, stderr=descriptor) as process:
            for address in (driver, fleet):
                await listens(address, process, log)
            yield SuperLink(process, driver, fleet, time.monotonic() - start)


@asynccontextmanager
async def simulation(
    side: Side, app: str, folder: Path, *, nodes: int, backend: str, log: Path
) -> AsyncIterator[SuperLink]:
    """Run a SuperLink whose nodes are simulated, by two workers, for as long as the block.

    The nodes are online, and the workers have loaded the app, when the block begins.
    Raises FailedError with the end of its log when it ends instead.
    """
    driver = free_address()
    apps = ("--client-app", app, "--app-dir", folder, "--num-supernodes", str(nodes))
    workers = ("--backend", backend, "--backend-config", json.dumps(two_workers(backend)))
    command = (*side.command, "--insecure", "--vce", "--driver-api-address", driver)
    start = time.monotonic()
    with log.open("wb") as output:
        descriptor = output.fileno()
        async with running(
            (*command, *apps, *workers), stdout=descriptor, stderr=descriptor
        ) as process:
            await says(log, "Simulating", process)
            link = SuperLink(process, driver, "", time.monotonic() - start)
            yield link
            # Killed, it would leave its workers to notice.
            await link.terminate()


def two_workers(backend: str) -> dict[str, object]:
    """Give the settings that make a backend of ours have two workers on any machine."""
    if backend == "ray":
        return {"ray": {"num_cpus": 2}}
    return {"client_resources": {"num_cpus": len(os.sched_getaffinity(0)) / 2}}


async def report(process: trio.Process) -> dict[str, Any]:
    """Wait for the next line that a load reports, whose standard output is a pipe."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        chunk = await process.stdout.receive_some()
        if not chunk:
            raise FailedError("a load ended early")
        line += chunk
    return dict(json.loads(line))


async def output(
    command: Sequence[str | Path],
    *,
    seconds: float,
    stderr: int | None = None,
    environment: Mapping[str, str] = _ENVIRONMENT,
) -> str:
    """Run a process to its end; give what it writes.

    Raises subprocess.CalledProcessError when it fails, and trio.TooSlowError when it takes longer
    than `seconds`.
    """
    with trio.fail_after(seconds):
        completed = await trio.run_process(
            command, capture_stdout=True, stderr=stderr, env=environment, deliver_cancel=_kill
        )
    return completed.stdout.decode()


async def _kill(process: trio.Process) -> None:
    process.kill()


async def load(name: str, *arguments: object, seconds: float = 300) -> dict[str, Any]:
    """Run one of the loads to its end; give what it reports.

    Raises trio.TooSlowError when it takes longer than `seconds`.
    """
    return dict(json.loads(await output(load_command(name, *arguments), seconds=seconds)))


def load_command(name: str, *arguments: object) -> list[str]:
    """Give the command that runs one of the loads."""
    return [sys.executable, "-m", f"benchmarks.loads.{name}", *map(str, arguments)]


def free_address() -> str:
    """Give an address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


async def listens(address: str, process: trio.Process, log: Path) -> None:
    """Wait until the process accepts connections there.

    Raises FailedError with the end of its log when it ends instead.
    """
    host, _, port = address.rpartition(":")
    with trio.fail_after(60):
        while True:
            try:
                socket.create_connection((host, int(port))).close()
            except OSError:
                if process.poll() is not None:
                    raise _ended(process, log) from None
                await trio.sleep(0.002)
            else:
                return


async def says(log: Path, text: str, process: trio.Process) -> None:
    """Wait until the process has logged a text.

    Raises FailedError with the end of its log when it ends instead.
    """
    with trio.fail_after(60):
        while not _contains(log, text):
            if process.poll() is not None:
                raise _ended(process, log)
            await trio.sleep(0.01)


def _contains(log: Path, text: str) -> bool:
    return text in log.read_text(errors="replace")


def _ended(process: trio.Process, log: Path) -> FailedError:
    reason = "; ".join(log.read_text(errors="replace").splitlines()[-3:]) or "it said nothing"
    return FailedError(f"the server ended with status {process.returncode}: {reason}")
