"""A SuperLink of two workers, as real processes."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from peering.client import Client, over_grpc
from peering.processes import ANY_PORT, CHECKOUT, OURS, Program, launching, lines_of
from prometheus_client.parser import text_string_to_metric_families

_thread = trio.to_thread.run_sync


@attrs.frozen
class Served:
    """A SuperLink of two workers."""

    program: Program
    ready: dict[str, Any]

    def client(self, side: str) -> Client:
        """Give a client with a connection of its own, so that any worker may have it."""
        address = self.ready[f"{side.lower()}_address"]
        return Client(over_grpc(address, side, timeout=20, alone=True))

    def get(self, path: str) -> str:
        """Give what operators find at a path."""
        host, _, port = self.ready["admin_address"].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
        connection.request("GET", path)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def figures(self) -> dict[str, float]:
        """Give the figures for Prometheus, by name and labels in the order of their names."""
        return {
            f"{sample.name}{[value for _, value in sorted(sample.labels.items())]}": sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    async def until(self, seen: Callable[[], bool]) -> None:
        """Wait until something can be seen; there is nobody to tell of it."""
        while True:
            if await _thread(seen):
                return
            await trio.sleep(0.02)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Give the log's lines so far that say so."""
        return [line for line in lines_of(self.program.lines) if event in line["event"]]


@asynccontextmanager
async def two_workers(
    database: str | Path, *options: str | Path, **environment: str
) -> AsyncIterator[Served]:
    fixed = ("--insecure", "--log-format", "json", "--workers", "2")
    places = ("--driver-api-address", ANY_PORT, "--fleet-api-address", ANY_PORT)
    where = ("--admin-address", ANY_PORT)
    known = {"SUPERLINK_DATABASE": str(database), "PYTHONPATH": CHECKOUT, **environment}
    async with launching() as launch:
        program = await launch("SuperLink", *OURS, *fixed, *places, *where, *options, **known)
        with trio.fail_after(60):
            yield Served(program, await program.report("driver_address"))


async def stopped(served: Served) -> float:
    """Stop it, and see that nothing of it is left, nor anything but lines of JSON.

    Give the seconds that this took.
    """
    workers = served.program.children()
    seconds = await served.program.terminate()
    assert await served.program.end() == 0
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    lines = [json.loads(line) for line in served.program.lines if line]
    assert {line.get("worker") for line in lines} >= {None, 1}
    return seconds
