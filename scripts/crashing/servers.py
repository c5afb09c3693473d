"""SuperLinks that are killed, and start again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from crashing.record import UNCERTAIN, Life, Record

_OPTIONS = {
    "driver": ("--driver-hold", "2", "--driver-api-address", "127.0.0.1:0"),
    "fleet": ("--hold", "2", "--no-readmit", "--grpc-rere-fleet-api-address", "127.0.0.1:0"),
}

# A long life now and then: what is collected early in it must not come again after its end.
_LONG_EVERY, _LONG = 8, UNCERTAIN + 2


class Server:
    """A process over the database, both sides or one, that is started again whenever it ends."""

    def __init__(self, database: Path, side: str | None = None) -> None:
        self.sides = _OPTIONS if side is None else [side]
        self._command = [sys.executable, "-m", "superlink_trio", "--log-format", "json"]
        self._command[3:3] = [] if side is None else [f"{side}-api"]
        self._command += ["--insecure", "--database", str(database)]
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
        self._process.send_signal(signal.SIGKILL)
        self._life, self._born, self._killed = None, trio.Event(), True

    async def serve(self) -> None:
        """Live again and again, until cancelled."""
        while True:
            self._killed = False
            async with trio.open_nursery() as nursery:
                self._process = await nursery.start(
                    partial(trio.run_process, self._command, check=False, stderr=subprocess.PIPE)
                )
                assert self._process.stderr is not None
                await self._live(self._process.stderr)

    async def _live(self, log: trio.abc.ReceiveStream) -> None:
        received = b""
        async for chunk in log:
            *lines, received = (received + chunk).split(b"\n")
            for said in map(json.loads, lines):
                if said["level"] == "error":
                    print(said["event"], file=sys.stderr)
                if f"{next(iter(self.sides))}_address" in said:
                    self._life = Life({side: said[f"{side}_address"] for side in self.sides})
                    self._born.set()
        if not self._killed:
            raise RuntimeError(f"It ended by itself: {' '.join(self._command)}")


async def kill(servers: Sequence[Server], kills: int, record: Record) -> None:
    """Kill one of the servers at a random moment, so many times, and let them live once more."""
    while not record.asked:  # noqa: ASYNC110 (a script may poll)
        await trio.sleep(0.05)
    for number in range(kills):
        for server in servers:
            await server.alive()
        await trio.sleep(random.uniform(0.05, 0.8) + (0 if number % _LONG_EVERY else _LONG))
        random.choice(servers).kill()
        record.kills += 1
    for server in servers:
        await server.alive()
