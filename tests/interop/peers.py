"""The processes of an interop test: a SuperLink, and unmodified Flower programs around it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio
from _peers import interpreter
from peering.processes import (
    ANY_PORT,
    CHECKOUT,
    Launch,
    Misbehaved,
    Program,
    SuperLink,
    free_address,
    launching,
    start_superlink,
)

VERSIONS = ("1.8.0", "1.9.0", "1.10.0", "1.11.1")
REFERENCE = os.environ.get("INTEROP_SUPERLINK")
_PROGRAMS = Path(__file__).parent / "programs"


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
    _start: Launch
    programs: list[Program] = attrs.field(factory=list, init=False)
    _clients: list[Program] = attrs.field(factory=list, init=False)

    async def superlink(
        self,
        *options: str,
        driver: str = ANY_PORT,
        fleet: str = ANY_PORT,
        transport: str = "grpc-rere",
        ca: Path | None = None,
    ) -> SuperLink:
        """Start the SuperLink under test; it serves when this returns.

        Over `rest` or over gRPC: which of the two gRPC services matters to Flower's own only. With
        `ca` it speaks TLS, and the options have to name its certificates.
        """
        if REFERENCE is not None:
            return await self._reference(REFERENCE, driver, fleet, transport)
        return await start_superlink(
            self._launch, *options, driver=driver, fleet=fleet, transport=transport, ca=ca
        )

    async def _reference(self, version: str, driver: str, fleet: str, transport: str) -> SuperLink:
        driver, fleet = (free_address() if each == ANY_PORT else each for each in (driver, fleet))
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
            raise Misbehaved(f"{program.name} ended with status {status}")
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
            *(ANY_PORT, *map(str, certificates)),
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
            *("-m", "superlink_trio", "--log-format", "json", "--driver-api-address", ANY_PORT),
            *options,
            **environment,
        )

    async def beside(self, script: str, *arguments: str) -> Program:
        """Start a program that imports both packages, flwr 1.9 and the one under test."""
        return await self._beside(f"{script} beside 1.9.0", _PROGRAMS / script, *arguments)

    async def _beside(self, name: str, *arguments: str | Path, **environment: str) -> Program:
        python = await trio.to_thread.run_sync(partial(interpreter, "1.9.0", beside=True))
        return await self._launch(name, python, *arguments, PYTHONPATH=CHECKOUT, **environment)

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

    async def _launch(self, name: str, *command: str | Path, **environment: str) -> Program:
        program = await self._start(name, *command, **environment)
        self.programs.append(program)
        return program

    def _command(self, version: str, name: str) -> Path:
        return self._interpreters[version].with_name(name)


@asynccontextmanager
async def open_peers(interpreters: Mapping[str, Path]) -> AsyncIterator[Peers]:
    """Give the block programs to start; none outlives it."""
    async with launching() as start:
        yield Peers(interpreters, start)


def _server_option(version: str) -> str:
    return "--server" if version == "1.8.0" else "--superlink"
