"""The processes of a measurement: the SuperLinks of both sides, and the loads put on them."""

from __future__ import annotations

import json
import os
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
class SuperLink:
    """A SuperLink that listens."""

    process: trio.Process
    driver: str
    fleet: str
    seconds_to_listen: float

    def resident(self) -> int:
        """Give the bytes of memory it has now."""
        return self._memory("VmRSS")

    def peak(self) -> int:
        """Give the most bytes of memory it has had so far."""
        return self._memory("VmHWM")

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

    async def terminate(self) -> float:
        """Ask it to stop; give the seconds until the process has ended.

        Raises FailedError when it has not ended after a minute.
        """
        start = time.monotonic()
        self.process.terminate()
        with trio.move_on_after(60) as patience:
            await self.process.wait()
        if patience.cancelled_caught:
            raise FailedError("the SuperLink has not ended a minute after SIGTERM")
        return time.monotonic() - start

    def _memory(self, name: str) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        raise FailedError(f"/proc tells no {name} of process {self.process.pid}")


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
    driver, fleet = _free_address(), _free_address()
    addresses = ("--driver-api-address", driver, "--fleet-api-address", fleet)
    start = time.monotonic()
    with log.open("wb") as output:
        command = (*side.command, *security, "--fleet-api-type", fleet_api, *addresses)
        descriptor = output.fileno()
        async with running((*command, *options), stdout=descriptor, stderr=descriptor) as process:
            for address in (driver, fleet):
                await _listens(address, process, log)
            yield SuperLink(process, driver, fleet, time.monotonic() - start)


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


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


async def _listens(address: str, process: trio.Process, log: Path) -> None:
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


def _ended(process: trio.Process, log: Path) -> FailedError:
    reason = "; ".join(log.read_text(errors="replace").splitlines()[-3:]) or "it said nothing"
    return FailedError(f"the SuperLink ended with status {process.returncode}: {reason}")
