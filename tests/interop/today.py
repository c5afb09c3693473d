"""Programs of Flower 1.26 to 1.42 around a SuperLink: nodes, and the command line `flwr`."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from _peers import NoPython, interpreter
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from peering.processes import (
    ANY_PORT,
    CHECKOUT,
    ROOT,
    Launch,
    Misbehaved,
    Program,
    SuperLink,
    free_address,
    launching,
    start_superlink,
)
from peering.today import ADDING, NEWEST, end_all, processes, surroundings

_NODES_OVER_GRPC = ("1.26.1", "1.36.0", "1.37.0")
_FLWR_OVER_GRPC = ("1.26.1", "1.36.0")

# Seconds in which what was killed has to be gone.
_PATIENCE = 5.0

EXAMPLE = ROOT / "examples" / "today"
LEGACY = ROOT / "tests" / "interop" / "programs" / "legacy"


@attrs.frozen
class Link:
    """A SuperLink that serves today's Flower, and where: over HTTP, and over gRPC."""

    superlink: SuperLink
    http: str
    control_grpc: str | None
    """Where `flwr` of 1.21 to 1.36 is served, if it is."""

    @property
    def program(self) -> Program:
        """Its process."""
        return self.superlink.program

    async def nodes(self, count: int) -> None:
        """Wait until as many nodes have come online since its start."""
        await self.program.line("is online", nth=count)


@attrs.frozen
class Today:
    """Starts programs; what they keep is in one folder."""

    folder: Path
    _start: Launch
    beside: bool = False
    """Whether it all runs where this package, Flower and Ray can be imported by one program."""
    programs: list[Program] = attrs.field(factory=list)

    @property
    def home(self) -> Path:
        """What Flower's programs take for the user's own folder."""
        return self.folder / "flwr"

    async def superlink(
        self,
        *options: str | Path,
        http: str = ANY_PORT,
        fleet: str = ANY_PORT,
        transport: str = "grpc-rere",
        ca: Path | None = None,
    ) -> Link:
        """Start a SuperLink, for which `flwr` has the name `mine` then; over gRPC: `older`."""
        superlink = await start_superlink(
            self._launch,
            *("--port", http.rpartition(":")[2], *options),
            fleet=fleet,
            transport=transport,
            ca=ca,
            # What is a name only is looked for where Flower's programs are.
            python="python" if self.beside else sys.executable,
            PYTHONPATH=CHECKOUT,
        )
        ready = await superlink.program.report("flower_address")
        link = Link(superlink, ready["flower_address"], ready["control_grpc_address"])
        self.name(link)
        return link

    def name(self, link: Link) -> None:
        """Let `flwr` know a SuperLink as `mine`, and over gRPC as `older`."""
        self.home.mkdir(exist_ok=True)
        ca = link.superlink.ca
        trust = "insecure = true" if ca is None else f'root-certificates = "{ca}"'
        (self.home / "config.toml").write_text(
            '[superlink]\ndefault = "mine"\n'
            f'[superlink.mine]\naddress = "{link.http}"\n{trust}\n'
            f'[superlink.older]\naddress = "{link.control_grpc}"\n{trust}\n'
        )

    async def enter(self, address: str, token: str) -> None:
        """Do what docs/security.md says of `credentials.yaml`, for the SuperLink there."""
        document = (ROOT / "docs" / "security.md").read_text()
        [commands] = re.findall(r"```sh\n(address=[^`]*credentials.yaml[^`]*)```", document)
        await trio.run_process(
            ["bash", "-euc", re.sub(r"(?<=^address=)\S+", address, commands)],
            stdin=f"{token}\n".encode(),
            env={**os.environ, "FLWR_HOME": str(self.home)},
        )

    async def node(self, link: Link, version: str = NEWEST, *, key: Path | None = None) -> Program:
        """Start a SuperNode as it is installed."""
        own = free_address()
        options = ["--port", own.rpartition(":")[2]]
        if version == "1.26.1":
            options = ["--clientappio-api-address", own]
        if key is not None:
            options += ["--auth-supernode-private-key", str(key)]
        return await self._launch(
            f"node of {version}",
            *("flower-supernode", *link.superlink.client_options),
            *("--superlink", link.superlink.fleet if version in _NODES_OVER_GRPC else link.http),
            *options,
            version=version,
        )

    async def superexec(self, link: Link, *options: str | Path) -> Program:
        """Start a SuperExec as it is installed."""
        return await self._launch(
            "SuperExec",
            *("flower-superexec", *link.superlink.client_options),
            *("--runtime-api-address", link.http, *options),
        )

    def key(self) -> tuple[Path, Path]:
        """Make a key pair as Flower's programs read it; give the private and the public file."""
        private, public = self.folder / "node", self.folder / "node.pub"
        key = ec.generate_private_key(ec.SECP384R1())
        form = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        private.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
        openssh = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        public.write_bytes(key.public_key().public_bytes(*openssh))
        return private, public

    def app(self, source: Path = ADDING, **replaced: str) -> Path:
        """Copy an app, since `flwr run` rewrites its project; some modules have another text."""
        app = self.folder / f"app-{len(list(self.folder.glob('app-*')))}"
        shutil.copytree(source, app)
        for module, text in replaced.items():
            (app / "steps" / f"{module}.py").write_text(text)
        return app

    async def run(self, app: Path, *, version: str = NEWEST, **config: object) -> Program:
        """Start `flwr run --stream`; it ends with the run."""
        words = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        return await self.flwr(
            *("run", app, _name(version), "--stream"),
            *(["--run-config", words.replace("_", "-")] if config else []),
            version=version,
        )

    async def ran(
        self, app: Path, *, version: str = NEWEST, **config: object
    ) -> dict[str, list[float]]:
        """Run an app to its end; give what its nodes told, by round."""
        program = await self.run(app, version=version, **config)
        if status := await program.end():
            raise Misbehaved(f"{program.name} ended with status {status}")
        return await program.report("sum")

    async def flwr(self, *words: str | Path, version: str = NEWEST) -> Program:
        """Start the command line."""
        name = f"flwr {words[0]} of {version}"
        return await self._launch(name, "flwr", *words, version=version)

    async def told(self, *words: str | Path, version: str = NEWEST) -> str:
        """Run the command line to its end; give what it printed. Raises Misbehaved."""
        program = await self.flwr(*words, version=version)
        if status := await program.end():
            raise Misbehaved(f"{program.name} ended with status {status}")
        return "\n".join(program.lines)

    async def newest_run(self, *, version: str = NEWEST) -> dict[str, Any]:
        """Give what `flwr ls` tells of the run that was started last."""
        words = "ls", _name(version), "--format", "json"
        listed = json.loads(await self.told(*words, version=version))
        # Releases differ in their order.
        return dict(max(listed["runs"], key=lambda run: run["pending-at"]))

    def processes(self, name: str) -> list[int]:
        """Give the processes with this word in their command line, of those started from here."""
        return processes(self.home, name)

    async def none_of(self, name: str) -> None:
        """Wait until such processes have ended, those that nobody here has a handle of."""
        while self.processes(name):  # noqa: ASYNC110 - the kernel tells only who started them
            await trio.sleep(0.05)

    async def one_of(self, name: str) -> None:
        """Wait until there is such a process."""
        while not self.processes(name):  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.05)

    async def _launch(
        self, name: str, *command: str | Path, version: str = NEWEST, **environment: str
    ) -> Program:
        # scripts/check has an environment of the newest alone: another is made when it is needed.
        programs = (await trio.to_thread.run_sync(_interpreter, version, self.beside)).parent
        first, *words = command
        program = await self._start(
            name,
            # What is a path already stays so.
            *(programs / first, *words),
            **surroundings(programs, self.home),
            **environment,
        )
        self.programs.append(program)
        return program


@asynccontextmanager
async def open_today(folder: Path, *, beside: bool = False) -> AsyncIterator[Today]:
    """Give the block programs to start; none outlives it, and nothing that they have started."""
    async with launching(sessions=True) as start:
        today = Today(folder, start, beside)
        try:
            yield today
        finally:
            # The process of a run is in no session of these, and outlives a SuperLink over a file.
            with trio.move_on_after(_PATIENCE, shield=True):
                await end_all(today.home)


def _name(version: str) -> str:
    """Give what the command line of a release calls the SuperLink."""
    return "older" if version in _FLWR_OVER_GRPC else "mine"


def _interpreter(version: str, beside: bool) -> Path:
    try:
        return interpreter(version, beside=beside)
    except NoPython as error:
        pytest.skip(str(error))
