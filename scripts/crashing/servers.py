"""SuperLinks that are killed, and start again."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import trio
from peering.processes import ANY_PORT, OURS, lines_of, running

from crashing.record import UNCERTAIN, Life, Record

_OPTIONS = {
    "driver": ("--driver-hold", "2", "--driver-api-address", ANY_PORT),
    "fleet": ("--hold", "2", "--no-readmit", "--grpc-rere-fleet-api-address", ANY_PORT),
}

# A long life now and then: what is collected early in it must not come again after its end. The
# drivers need not be busy all the while, only when the end comes.
_LONG_EVERY, _LONG, _PAUSE = 8, UNCERTAIN + 2, 0.25


@attrs.define
class Load:
    """What drivers do until it is over: rounds, with a pause after each, in seconds."""

    pause: float = 0.0
    over: bool = False


class Server:
    """A process over the database, both sides or one, that is started again whenever it ends."""

    def __init__(self, database: Path, side: str | None = None) -> None:
        self.sides = list(_OPTIONS) if side is None else [side]
        self._command = [*OURS, *([] if side is None else [f"{side}-api"])]
        self._command += ["--insecure", "--log-format", "json", "--database", str(database)]
        self._command += [option for each in self.sides for option in _OPTIONS[each]]
        self._life: Life | None = None
        self._born = trio.Event()
        self._process: trio.Process | None = None
        self._killed = False

    async def alive(self) -> Life:
        """Wait until it serves; give the life in which it does."""
        while self._life is None:
            await self._born.wait()
        return self._life

    def kill(self) -> None:
        """Kill it. It is alive."""
        assert self._life is not None
        assert self._process is not None
        self._life.killed_at = time.monotonic()
        self._process.kill()
        self._life, self._born, self._killed = None, trio.Event(), True

    async def serve(self) -> None:
        """Live again and again, until cancelled. Raises Misbehaved when it ends by itself."""
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


async def kill(servers: Sequence[Server], kills: int, record: Record, load: Load) -> None:
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
