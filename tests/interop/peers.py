"""The processes of an interop test: a SuperLink, and unmodified Flower programs around it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio
from _peers import interpreter

VERSIONS = ("1.8.0", "1.9.0", "1.10.0", "1.11.1")
REFERENCE = os.environ.get("INTEROP_SUPERLINK")
_PROGRAMS = Path(__file__).parent / "programs"
_ROOT = Path(__file__).parents[2]
_ANY_PORT = "127.0.0.1:0"


class Ended(Exception):
    """A program ended, or ended otherwise, than the test needs."""


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
        assert self.process.stdout is not None
        rest = b""
        async for chunk in self.process.stdout:
            *complete, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode(errors="replace") for line in complete]
            self._tell()
        self.lines.append(rest.decode(errors="replace"))
        self._ended = True
        self._tell()

    async def write(self, text: str) -> None:
        """Put text on the process's standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(text.encode())

    async def line(self, pattern: str, *, nth: int = 1) -> str:
        """Wait for the nth line in which the pattern is found.

        Raises Ended when the process ends without it.
        """
        while True:
            news = self._news
            found = [line for line in self.lines if re.search(pattern, line)]
            if len(found) >= nth:
                return found[nth - 1]
            if self._ended:
                raise Ended(f"{self.name} ended without line {nth} of {pattern!r}")
            await news.wait()

    async def report(self, key: str) -> dict[str, Any]:
        """Wait for a line that is a JSON object with this key."""
        return dict(json.loads(await self.line(rf'^{{.*"{key}":')))

    async def end(self) -> int:
        """Wait for the process to end; gives its exit status, negative for a signal."""
        while not self._ended:
            await self._news.wait()
        return await self.process.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()


@attrs.frozen
class SuperLink:
    """A SuperLink that serves, and where."""

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


@attrs.frozen
class Round:
    """What a server-app reported of a round: `failures` counts fit and evaluation together."""

    number: int
    loss: float | None
    failures: int


@attrs.frozen
class Peers:
    """Starts programs; each runs in the environment of the Flower release that is asked for."""

    _interpreters: Mapping[str, Path]
    _nursery: trio.Nursery
    programs: list[Program] = attrs.field(factory=list, init=False)
    _clients: list[Program] = attrs.field(factory=list, init=False)

    async def superlink(
        self,
        *options: str,
        driver: str = _ANY_PORT,
        fleet: str = _ANY_PORT,
        transport: str = "grpc-rere",
        ca: Path | None = None,
    ) -> SuperLink:
        """Start the SuperLink under test; it serves when this returns.

        Over `rest` or over gRPC: which of the two gRPC services matters to Flower's own only. With
        `ca` it speaks TLS, and the options have to name its certificates.
        """
        if REFERENCE is not None:
            return await self._reference(REFERENCE, driver, fleet, transport)
        program = await self._launch(
            "SuperLink",
            *(sys.executable, "-m", "superlink_trio", "--log-format", "json"),
            *(["--insecure"] if ca is None else []),
            *("--driver-api-address", driver),
            *("--fleet-api-type", transport, "--fleet-api-address", fleet),
            *options,
        )
        ready = await program.report("fleet_address")
        return SuperLink(program, ready["driver_address"], ready["fleet_address"], ca)

    async def _reference(self, version: str, driver: str, fleet: str, transport: str) -> SuperLink:
        driver, fleet = _with_port(driver), _with_port(fleet)
        if version == "1.8.0":
            fleet_options = ["--grpc-rere-fleet-api-address", fleet]
        else:
            fleet_options = ["--fleet-api-type", transport, "--fleet-api-address", fleet]
        program = await self._launch(
            f"SuperLink of {version}",
            *(self._command(version, "flower-superlink"), "--insecure"),
            *("--driver-api-address", driver, *fleet_options),
        )
        # It starts the Fleet API last.
        await program.line("Starting Fleet API")
        return SuperLink(program, driver, fleet)

    async def client(
        self,
        superlink: SuperLink,
        version: str,
        *,
        transport: str = "grpc-rere",
        step: float = 1,
        stall: float = 0,
    ) -> Program:
        """Start the adding client: it adds `step`, and its first fit takes `stall` seconds.

        With `math.inf` it takes until a line is written to it.
        """
        client = await self._launch(
            f"client of {version} over {transport}",
            *(self._interpreters[version], _PROGRAMS / "adder.py"),
            *(superlink.url if transport == "rest" else superlink.fleet, transport),
            CA_CERT="" if superlink.ca is None else str(superlink.ca),
            STEP=str(step),
            STALL=str(stall),
        )
        self._clients.append(client)
        return client

    async def client_app(
        self, superlink: SuperLink, version: str, app: str, *options: str | Path, step: float = 1
    ) -> Program:
        """Start a client-app with 1.8's or 1.9's own launcher."""
        client = await self._launch(
            f"client-app of {version}",
            *(self._command(version, "flower-client-app"), app, "--dir", _PROGRAMS),
            *(*superlink.client_options, _server_option(version), superlink.fleet),
            *options,
            STEP=str(step),
        )
        self._clients.append(client)
        return client

    async def node(
        self, superlink: SuperLink, version: str, private: Path, public: Path, *, step: float = 1
    ) -> Program:
        """Start the adding client with a key pair, over TLS, as the release wants to be told."""
        assert superlink.ca is not None
        if version == "1.9.0":
            return await self.client_app(
                *(superlink, version, "adder:app"),
                *("--auth-supernode-private-key", private),
                *("--auth-supernode-public-key", public),
                step=step,
            )
        client = await self._launch(
            f"node of {version}",
            *(self._interpreters[version], _PROGRAMS / "authenticated.py", superlink.fleet),
            *(superlink.ca, private, public),
            STEP=str(step),
        )
        self._clients.append(client)
        return client

    async def server_app(
        self,
        superlink: SuperLink,
        version: str = "1.9.0",
        *,
        clients: int,
        rounds: int = 3,
        round_timeout: float | None = None,
    ) -> Program:
        """Start the averaging server-app with 1.8's or 1.9's own launcher."""
        # It looks for nodes at its start and then every 3 s only: let them be there by then.
        for client in self._clients:
            await client.line("starting")
        return await self._launch(
            f"server-app of {version}",
            *(self._command(version, "flower-server-app"), "averager:app", "--dir", _PROGRAMS),
            *(*superlink.client_options, _server_option(version), superlink.driver),
            CLIENTS=str(clients),
            ROUNDS=str(rounds),
            ROUND_TIMEOUT="" if round_timeout is None else str(round_timeout),
        )

    async def federate(
        self,
        superlink: SuperLink,
        version: str = "1.9.0",
        *,
        clients: int,
        rounds: int = 3,
        round_timeout: float | None = None,
    ) -> Sequence[Round]:
        """Run the averaging server-app to its end; gives what it reported of each round."""
        program = await self.server_app(
            superlink, version, clients=clients, rounds=rounds, round_timeout=round_timeout
        )
        if status := await program.end():
            raise Ended(f"{program.name} ended with status {status}")
        reports = [json.loads(line) for line in program.lines if line.startswith('{"round"')]
        return [Round(r["round"], r["loss"], r["failures"]) for r in reports]

    async def round_loop(
        self,
        *,
        clients: int,
        rounds: int = 3,
        round_timeout: float | None = None,
        certificates: Sequence[Path] = (),
    ) -> SuperLink:
        """Start our `start_server` in a script; clients of `grpc-bidi` join where `fleet` says."""
        program = await self._launch(
            "start_server",
            *(sys.executable, _PROGRAMS / "round_loop.py"),
            *(_ANY_PORT, *map(str, certificates)),
            CLIENTS=str(clients),
            ROUNDS=str(rounds),
            ROUND_TIMEOUT="" if round_timeout is None else str(round_timeout),
        )
        address = (await program.line("Listening on")).partition("Listening on ")[2].split(",")[0]
        return SuperLink(program, "", address, certificates[0] if certificates else None)

    async def simulation(
        self,
        app: str,
        *options: str,
        nodes: int,
        backend: str,
        **environment: str,
    ) -> SuperLink:
        """Start a SuperLink whose nodes run an app of flwr 1.9; it serves when this returns."""
        program = await self.simulating(
            *("--insecure", "--vce", "--client-app", app, "--app-dir", str(_PROGRAMS)),
            *("--num-supernodes", str(nodes), "--backend", backend),
            *options,
            **environment,
        )
        ready = await program.report("driver_address")
        return SuperLink(program, ready["driver_address"], "")

    async def simulating(self, *options: str, **environment: str) -> Program:
        """Start a SuperLink whose workers can import flwr 1.9."""
        return await self._beside(
            "SuperLink",
            *("-m", "superlink_trio", "--log-format", "json", "--driver-api-address", _ANY_PORT),
            *options,
            **environment,
        )

    async def beside(self, script: str, *arguments: str) -> Program:
        """Start a program that imports both packages, flwr 1.9 and the one under test."""
        return await self._beside(f"{script} beside 1.9.0", _PROGRAMS / script, *arguments)

    async def _beside(self, name: str, *arguments: str | Path, **environment: str) -> Program:
        python = await trio.to_thread.run_sync(partial(interpreter, "1.9.0", beside=True))
        return await self._launch(name, python, *arguments, PYTHONPATH=str(_ROOT), **environment)

    async def launcher(self, version: str, name: str, *options: str | Path) -> Program:
        """Start a program of a Flower release."""
        return await self._launch(f"{name} of {version}", self._command(version, name), *options)

    async def driver(
        self, superlink: SuperLink, version: str, script: str, *arguments: str
    ) -> Program:
        """Start one of the programs that drive a run through the release's low-level driver."""
        return await self._launch(
            f"driver of {version}",
            *(self._interpreters[version], _PROGRAMS / script, superlink.driver),
            *arguments,
        )

    async def kill(self) -> None:
        """End every program that still runs."""
        for program in self.programs:
            program.process.kill()
        for program in self.programs:
            await program.end()

    async def _launch(self, name: str, *command: str | Path, **environment: str) -> Program:
        process = await trio.lowlevel.open_process(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        )
        program = Program(name, process)
        self.programs.append(program)
        self._nursery.start_soon(program.read)
        return program

    def _command(self, version: str, name: str) -> Path:
        return self._interpreters[version].with_name(name)


@asynccontextmanager
async def open_peers(interpreters: Mapping[str, Path]) -> AsyncIterator[Peers]:
    """Give the block programs to start; none outlives it."""
    async with trio.open_nursery() as nursery:
        peers = Peers(interpreters, nursery)
        try:
            yield peers
        finally:
            # What was killed ends at once: this is over soon, in a cancelled test too.
            with trio.CancelScope(shield=True):
                await peers.kill()


def _server_option(version: str) -> str:
    return "--server" if version == "1.8.0" else "--superlink"


def _with_port(address: str) -> str:
    if address != _ANY_PORT:
        return address
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"
