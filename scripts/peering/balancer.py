"""A real HAProxy in front of replicas, with the configuration that docs/deploy recommends."""

from __future__ import annotations

import csv
import itertools
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from peering.processes import ROOT, Program, launching

CONFIGURATION = ROOT / "docs" / "deploy" / "haproxy.cfg"

_FRONT = "10.0.0.1"
# In the configuration, and here: not those on which other tests serve every interface.
_PORTS = re.compile(r"\b(8000|9091|9092|9190|9191)\b")
_HERE = r"2\1"
_SIDES = {"29091": "driver", "29092": "fleet", "28000": "flower"}
_OPTIONS = {"driver": "--driver-api-address", "fleet": "--grpc-rere-fleet-api-address"}
_MACHINE = re.compile(r"\b10\.0\.0\.\d+\b")
_SERVER = re.compile(r"^ +server (\w+) (10\.[\d.]+):(\d+) check port (\d+)", re.MULTILINE)

_numbers = itertools.count()


class NoBalancer(Exception):
    """There is no HAProxy on this machine; the message says what to do."""


@attrs.frozen
class Place:
    """Where the balancer looks for a replica."""

    side: str
    """Its API: "driver", "fleet" or "flower" (today's, over HTTP)."""
    name: str
    address: str
    admin: str

    @property
    def options(self) -> Sequence[str]:
        """The options by which a SuperLink is there."""
        host, _, port = self.address.rpartition(":")
        today = ("--host", host, "--port", port)
        where = today if self.side == "flower" else (_OPTIONS[self.side], self.address)
        return (*where, "--admin-address", self.admin)


@attrs.frozen
class Balancer:
    """A balancer that serves."""

    program: Program
    addresses: Mapping[str, str]
    """By API: where clients connect."""
    places: Sequence[Place]
    _socket: Path

    def of(self, *sides: str) -> Sequence[Place]:
        """Give the places of these APIs."""
        return [place for place in self.places if place.side in sides]

    async def up(self) -> Sequence[Place]:
        """Give the places to which it sends clients now."""
        rows = await self._servers()
        return [place for place in self.places if rows[place]["status"].startswith("UP")]

    async def drain(self, place: Place) -> None:
        """Let it send nobody there any more, and wait until whoever it did has an answer."""
        await self._command(f"set server {place.side}/{place.name} state drain")
        while (await self._servers())[place]["scur"] != "0":  # noqa: ASYNC110 (HAProxy tells nobody)
            await trio.sleep(0.05)

    async def fill(self, place: Place) -> None:
        """Let it send clients there again, and wait until it does."""
        await self._command(f"set server {place.side}/{place.name} state ready")
        while place not in await self.up():  # noqa: ASYNC110 (HAProxy tells nobody)
            await trio.sleep(0.05)

    async def _servers(self) -> Mapping[Place, Mapping[str, str]]:
        told = await self._command("show stat")
        rows = csv.DictReader(told.removeprefix("# ").splitlines())
        found = {(row["pxname"], row["svname"]): row for row in rows}
        return {place: found[place.side, place.name] for place in self.places}

    async def _command(self, command: str) -> str:
        """Give HAProxy a command, and return what it says.

        Source: https://docs.haproxy.org/2.6/management.html#9.3
        """
        stream = await trio.open_unix_socket(str(self._socket))
        async with stream:
            await stream.send_all(f"{command}\n".encode())
            return b"".join([chunk async for chunk in stream]).decode()


@asynccontextmanager
async def balancing(folder: Path, *, http: bool = False) -> AsyncIterator[Balancer]:
    """Balance inside the block. `http`: the calls of nodes, too, one by one. Raises NoBalancer.

    Each machine of the configuration is a loopback address that no other process uses, with ports
    that the kernel gives nobody by itself: so replicas find them free whenever they start again.
    `folder` holds what HAProxy needs.
    """
    program = shutil.which("haproxy", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if program is None:
        raise NoBalancer("HAProxy is not installed: apt-get install haproxy")
    text = CONFIGURATION.read_text()
    if http:
        text = _with_nodes_over_http(text)
    text = _PORTS.sub(_HERE, text)
    machines = {name: _own_address() for name in set(_MACHINE.findall(text))}
    file = folder / "haproxy.cfg"
    file.write_text(_on_this_machine(text, machines, folder))
    async with launching() as launch:
        haproxy = await launch("HAProxy", program, "-db", "-f", file)
        addresses = {side: f"{machines[_FRONT]}:{port}" for port, side in _SIDES.items()}
        for address in addresses.values():
            await haproxy.listens(address)
        yield Balancer(haproxy, addresses, _places(text, machines), folder / "admin.sock")


def _own_address() -> str:
    high, low = divmod(os.getpid() % 2**16, 256)
    return f"127.{1 + next(_numbers) % 250}.{high}.{low}"


def _with_nodes_over_http(text: str) -> str:
    text = text.replace("mode tcp", "mode http").replace("option tcplog", "option httplog")
    text = text.replace("bind :9092", "bind :9092 proto h2")
    text = text.replace(":9092 check port 9190", ":9092 check port 9190 check-proto h1 proto h2")
    return text.replace("backend fleet\n", "backend fleet\n    option forwardfor\n")


def _on_this_machine(text: str, machines: Mapping[str, str], folder: Path) -> str:
    text = text.replace("bind :", f"bind {_FRONT}:").replace("/run/haproxy", str(folder))
    text = re.sub(r"maxconn \d+", "maxconn 1000", text)
    # Only root may become another user.
    text = re.sub(r"^ +(user|group) .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"log /dev/log \w+", "log stdout format raw daemon", text)
    return _MACHINE.sub(lambda found: machines[found[0]], text)


def _places(text: str, machines: Mapping[str, str]) -> Sequence[Place]:
    return [
        Place(_SIDES[port], name, f"{machines[machine]}:{port}", f"{machines[machine]}:{admin}")
        for name, machine, port, admin in _SERVER.findall(text)
    ]
