"""One attack after the other on one SuperLink, beside a normal client; and what came of each."""

from __future__ import annotations

import json
import ssl
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import attrs
import trio
from peering.client import Client, fleet, over_grpc
from peering.messages import record_set, task_ins
from peering.processes import SuperLink, lines_of, output

from abusing.assault import Tally, assault
from abusing.attacks import ANSWER, ANSWERS, MEGABYTE, Attack, Target
from superlink_trio.wire import superlink_pb2 as pb

# Seconds in which an honest call has to be answered: the deadline of the clients' own pings.
_SERVED = 5.0

# How long the normal client works before an attack, and after it, in seconds.
_LEAD, _TAIL = 1.5, 1.5

_SAMPLE = 0.02
_TIMEOUT = 30.0


@attrs.frozen(kw_only=True)
class Cost:
    """What an attack cost the server: bytes of memory, seconds of processor time."""

    before: int
    peak: int
    after: int
    cpu: float


@attrs.frozen(kw_only=True)
class Outcome:
    """What came of an attack."""

    attack: Attack
    memory: int
    """Bytes by which the server may grow."""
    tally: Tally
    seconds: float
    cost: Cost
    latencies: Sequence[float]
    """Seconds, of the normal client's calls that were under way during the attack."""
    errors: Sequence[str]
    unserved: Sequence[str]
    logged: Sequence[dict[str, Any]]

    @property
    def faults(self) -> list[str]:
        """Name everything that must not be."""
        faults = [f"not served: {what}" for what in self.unserved]
        if not self.latencies:
            faults.append("the normal client made no call")
        elif max(self.latencies) > _SERVED:
            faults.append(f"a call took {max(self.latencies):.1f} s")
        if self.cost.peak - self.cost.before > self.memory:
            faults.append(f"grew by more than {self.memory // MEGABYTE:,} MB")
        return faults

    def cells(self) -> Sequence[str]:
        """Give the row's cells in the order of `HEAD`."""
        cost, latencies = self.cost, self.latencies or [0.0]
        sizes = (cost.before, cost.peak, cost.after)
        errors = sum(line.get("level") == "error" for line in self.logged)
        return (
            self.attack.name,
            f"{self.tally.frames:,} / {self.tally.connections:,} in {self.seconds:g} s",
            self.tally.summary(),
            " / ".join(f"{size / MEGABYTE:.0f}" for size in sizes),
            f"{cost.cpu:.1f} s",
            f"{len(self.logged):,}" + (f" ({errors} errors)" if errors else ""),
            f"{1000 * statistics.median(latencies):.0f} / {1000 * max(latencies):.0f} ms"
            + "".join(f", {count} {error}" for error, count in Counter(self.errors).items()),
            f"**{'; '.join(self.faults)}**" if self.faults else "served",
        )


HEAD = (
    "attack",
    "frames / connections sent",
    "what the server did to them",
    "its memory before / peak / after, MB",
    "its processor time",
    "its log lines",
    "a normal client's calls: median / worst",
    "verdict",
)


@attrs.frozen(kw_only=True)
class Trial:
    """A SuperLink that is attacked."""

    link: SuperLink
    rest: bool
    seconds: float
    """How long each attack lasts."""

    async def attempt(self, attack: Attack) -> Outcome:
        """Make one attack while a normal client works, and after it."""
        target = await trio.to_thread.run_sync(self.target, attack)
        await self.link.program.quiet()
        logged, tally, reports = len(self.link.program.lines), Tally(), list[dict[str, Any]]()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._normal_client, reports)
            await trio.sleep(_LEAD)
            begun = time.monotonic()
            cost = await self._measure(attack, target, tally)
            ended = begun + self.seconds
        [report] = reports
        return Outcome(
            attack=attack,
            memory=attack.memory if self.rest else attack.memory_grpc or attack.memory,
            tally=tally,
            seconds=self.seconds,
            cost=attrs.evolve(cost, after=self.link.program.resident()),
            latencies=[
                seconds
                for start, seconds, _ in report["calls"]
                if start < ended and start + seconds > begun
            ],
            errors=[error for *_, errors in report["calls"] for error in errors],
            unserved=report["unserved"],
            logged=lines_of(self.link.program.lines[logged:]),
        )

    def target(self, attack: Attack) -> Target:
        """Make the node that the attacker pulls for, and tasks for it."""
        ca = None if self.link.ca is None else self.link.ca.read_bytes()
        node = fleet(self.link.fleet, ca, rest=self.rest, timeout=_TIMEOUT).create_node()
        if attack.large_answers:
            driver = Client(over_grpc(self.link.driver, "Driver", ca))
            task = task_ins(driver.create_run(), node, record_set(bytes(ANSWER)))
            for _ in range(ANSWERS):
                driver.push_tasks([task])
        return Target(
            address=self.link.fleet,
            rest=self.rest,
            tls=None if ca is None else ssl.create_default_context(cadata=ca.decode()),
            pull=pb.PullTaskInsRequest(node=node).SerializeToString(),
            idle_pull=pb.PullTaskInsRequest(node=pb.Node(anonymous=True)).SerializeToString(),
        )

    async def stop(self, attacks: Sequence[Attack]) -> tuple[float, int | None]:
        """Send SIGTERM during several attacks at once; give the seconds it took, and the status."""
        targets = [await trio.to_thread.run_sync(self.target, attack) for attack in attacks]
        async with trio.open_nursery() as nursery:
            for attack, target in zip(attacks, targets, strict=True):
                nursery.start_soon(assault, attack, target, Tally())
            await trio.sleep(1)
            seconds = await self.link.program.terminate()
            nursery.cancel_scope.cancel()
        return seconds, self.link.program.process.returncode

    async def _normal_client(self, reports: list[dict[str, Any]]) -> None:
        seconds = _LEAD + self.seconds + _TAIL
        command = [
            *(sys.executable, "-m", "abusing.bystander", self.link.driver, self.link.fleet),
            *("rest" if self.rest else "grpc", str(seconds)),
            *([] if self.link.ca is None else [str(self.link.ca)]),
        ]
        reports.append(json.loads(await output(*command, seconds=seconds + 60)))

    async def _measure(self, attack: Attack, target: Target, tally: Tally) -> Cost:
        sizes = [self.link.program.resident()]
        used = self.link.program.cpu_seconds()

        async def watch() -> None:
            while True:
                await trio.sleep(_SAMPLE)
                sizes.append(self.link.program.resident())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with trio.move_on_after(self.seconds):
                await assault(attack, target, tally)
                await trio.sleep_forever()
            cpu = self.link.program.cpu_seconds() - used
            # What was begun may still grow.
            await trio.sleep(_TAIL / 2)
            nursery.cancel_scope.cancel()
        return Cost(before=sizes[0], peak=max(sizes), after=sizes[-1], cpu=cpu)
