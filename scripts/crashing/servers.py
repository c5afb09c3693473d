"""SuperLinks that are killed, and start again."""

from __future__ import annotations

import random
import signal
import sys
import time
from collections.abc import Sequence
from typing import Protocol

import attrs
import trio
from peering.processes import ANY_PORT, OURS, lines_of, running

from crashing.record import UNCERTAIN, Life, Record

_ADDRESSES = {"driver": "--driver-api-address", "fleet": "--grpc-rere-fleet-api-address"}
_OPTIONS = {"driver": ("--driver-hold", "2"), "fleet": ("--hold", "2", "--no-readmit")}

# A long life now and then: what is collected early in it must not come again after its end. The
# drivers need not be busy all the while, only when the end comes.
_LONG_EVERY, _LONG, _PAUSE = 8, UNCERTAIN + 2, 0.25


@attrs.define
class Load:
    """What drivers do until it is over: rounds, with a pause after each, in seconds."""

    pause: float = 0.0
    over: bool = False


class Mortal(Protocol):
    """What can be called, or is called by what can be, until it is killed; it comes back."""

    @property
    def sides(self) -> Sequence[str]:
        """The APIs that it has: "driver", "fleet", both, or none."""

    async def alive(self) -> Life:
        """Wait until it serves; give the life in which it does."""

    def kill(self) -> None:
        """Kill it. It is alive."""

    async def serve(self) -> None:
        """Live again and again, until cancelled. Raises Misbehaved when it ends by itself."""


class Server:
    """A process over the database, with both APIs or one, started again whenever it ends.

    `options` say where it listens; otherwise it chooses ports.
    """

    def __init__(self, database: str, sides: Sequence[str], options: Sequence[str] = ()) -> None:
        self.sides = sides
        self._command = [*OURS, *([f"{sides[0]}-api"] if len(sides) == 1 else [])]
        self._command += ["--insecure", "--log-format", "json", "--database", database]
        self._command += [option for side in sides for option in _OPTIONS[side]]
        self._command += options or [
            option for side in sides for option in (_ADDRESSES[side], ANY_PORT)
        ]
        self._life: Life | None = None
        self._born = trio.Event()
        self._process: trio.Process | None = None
        self._killed = False

    @property
    def lives(self) -> bool:
        """Whether it serves now."""
        return self._life is not None

    async def alive(self) -> Life:
        """See `Mortal`."""
        while self._life is None:
            await self._born.wait()
        return self._life

    def kill(self, by: signal.Signals = signal.SIGKILL) -> None:
        """See `Mortal`; `by` SIGTERM it stops by itself."""
        assert self._life is not None
        assert self._process is not None
        self._life.killed_at = time.monotonic()
        self._process.send_signal(by)
        self._life, self._born, self._killed = None, trio.Event(), True

    async def serve(self) -> None:
        """See `Mortal`."""
        while True:
            self._killed = False
            async with running("SuperLink", *self._command) as program:
                self._process = program.process
                ready = await program.report(f"{self.sides[0]}_address")
                self._life = Life({side: ready[f"{side}_address"] for side in self.sides})
                self._born.set()
                await program.end()
                for event in lines_of(program.lines):
                    if event.get("level") == "error":
                        print(event["event"], file=sys.stderr)
                if not self._killed:
                    raise program.ended("by itself")


async def kill(servers: Sequence[Mortal], kills: int, record: Record, load: Load) -> None:
    """Kill one of the servers at a random moment, so many times, and let them live once more."""
    while not record.asked:  # noqa: ASYNC110 (a script may poll)
        await trio.sleep(0.05)
    for number in range(kills):
        for server in servers:
            await server.alive()
        if number % _LONG_EVERY == 0:
            load.pause = _PAUSE
            await trio.sleep(_LONG)
            load.pause = 0.0
        await trio.sleep(random.uniform(0.05, 0.8))
        random.choice(servers).kill()
        record.kills += 1
    for server in servers:
        await server.alive()
