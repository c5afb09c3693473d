"""The Ray backend, as the SuperLink sees it: a process at the other end of a socket."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import pickle
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import attrs
import outcome
import trio

from superlink_trio.simulation.backend import (
    App,
    Backend,
    BackendDied,
    Job,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.folders import private_folder
from superlink_trio.simulation.parcels import Answer, Parcel, remove
from superlink_trio.simulation.ray.process import RayProcess, ray_process
from superlink_trio.simulation.ray.protocol import (
    Cancel,
    Dead,
    Died,
    Done,
    Frames,
    Opening,
    Run,
)
from superlink_trio.simulation.ray.settings import Settings
from superlink_trio.simulation.shares import Shares, open_shares

# How long the head node of a cluster may take to accept a connection.
_REACHING = 10.0

# The sockets of Ray lie below its directory, and the path of one may have 107 bytes (unix(7)), or
# 103 on macOS; Ray's own part of it takes up to 70.
_LONGEST_PREFIX = 14

_FAMILY = "superlink-vce-"

_log = logging.getLogger(__name__)


@asynccontextmanager
async def open_ray_backend(app: App, config: Mapping[str, object]) -> AsyncIterator[Backend]:
    """Run the app in Ray actors; `config` is what `--backend-config` says (docs/ray.md).

    Raises AppNotLoaded; ValueError for settings that cannot be used, or that ask for more than Ray
    has; ConnectionError if a cluster cannot be reached or Ray not be started; and BackendDied, in
    an ExceptionGroup once the block runs.
    """
    settings = Settings.read(config)
    if importlib.util.find_spec("ray") is None:
        raise ValueError(f"--backend ray needs Ray: {sys.executable} -m pip install 'ray>=2.52'")
    if settings.address is not None:
        await _reach(settings.address)
    async with (
        open_shares() as shares,
        private_folder(_root(), _FAMILY) as directory,
        ray_process(settings, directory) as process,
    ):
        app = attrs.evolve(app, directory=app.directory.absolute())
        capacity = await process.open(Opening(app, settings, directory))
        backend = _RayBackend(capacity, process.frames, shares)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.receive, process)
            try:
                yield backend
            finally:
                backend.close()
            nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class _Waiting:
    answer: outcome.Outcome[Done] | None = None
    answered: trio.Event = attrs.field(factory=trio.Event)


class _RayBackend(Backend):
    def __init__(self, capacity: int, frames: Frames, shares: Shares) -> None:
        self._capacity = capacity
        self._frames = frames
        self._shares = shares
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._ended: str | None = None

    @property
    def capacity(self) -> int:
        return self._capacity

    async def run(self, job: Job) -> Outcome:
        async with self._shares.parcel(job) as parcel:
            done = await self._ask(parcel)
            rest: Outcome = pickle.loads(done.outcome)
            answer = Answer(outcome=rest, content=done.content, state=done.state)
            return await self._shares.outcome(answer)

    async def _ask(self, parcel: Parcel) -> Done:
        if self._ended is not None:
            raise BackendDied(self._ended)
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting()
        self._frames.send(
            Run(number, pickle.dumps(parcel.job), parcel.content, parcel.state, parcel.answers)
        )
        try:
            await waiting.answered.wait()
        except trio.Cancelled:
            self._frames.send(Cancel(number))
            raise
        finally:
            del self._waiting[number]
        assert waiting.answer is not None
        return waiting.answer.unwrap()

    async def receive(self, process: RayProcess) -> NoReturn:
        """Pass on answers until there are no more. Raises BackendDied."""
        try:
            while True:
                match await self._frames.receive():
                    case Done(number) as done:
                        self._answer(number, outcome.Value(done))
                    case Died(number, reason):
                        self._answer(number, outcome.Error(WorkerDied(reason)))
                    case Dead(reason):
                        break
        except trio.EndOfChannel:
            reason = await process.describe_exit()
        self._end(reason)
        raise BackendDied(reason)

    def close(self) -> None:
        """Answer who still waits, and whoever comes."""
        if self._ended is None:
            self._end("the Ray backend was closed")

    def _end(self, reason: str) -> None:
        self._ended = reason
        for number in list(self._waiting):
            self._answer(number, outcome.Error(BackendDied(reason)))

    def _answer(self, number: int, answer: outcome.Outcome[Done]) -> None:
        waiting = self._waiting.get(number)
        if waiting is None:
            # The job was cancelled when it had been answered already.
            _discard(answer)
        elif waiting.answer is None:
            waiting.answer = answer
            waiting.answered.set()


def _discard(answer: outcome.Outcome[Done]) -> None:
    if isinstance(answer, outcome.Value):
        for part in (answer.value.content, answer.value.state):
            remove(part)


def _root() -> Path:
    root = tempfile.gettempdir()
    return Path(root if len(root) <= _LONGEST_PREFIX else "/tmp")


async def _reach(address: str) -> None:
    """Try whether somebody listens. Ray itself would try for minutes, and say less."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(_REACHING):
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
    except trio.TooSlowError:
        raise ConnectionError(
            f"no Ray cluster at {address}: no answer within {_REACHING:.0f} s"
        ) from None
    except OSError as error:
        raise ConnectionError(f"no Ray cluster at {address}: {error}") from error
    await stream.aclose()
