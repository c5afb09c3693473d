"""The Ray backend, as the SuperLink sees it: a process at the other end of a socket."""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import pickle
import secrets
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NoReturn

import attrs
import outcome
import trio

from superlink_trio.processes.children import ChildProcess
from superlink_trio.simulation.backend import (
    App,
    Backend,
    BackendDied,
    Job,
    Outcome,
    WorkerDied,
)
from superlink_trio.simulation.beside import beside, told_if_slow
from superlink_trio.simulation.folders import private_folder
from superlink_trio.simulation.parcels import Answer, Parcel, remove
from superlink_trio.simulation.ray.protocol import (
    Cancel,
    Dead,
    Died,
    Done,
    Frames,
    Message,
    NotOpened,
    Opening,
    Ready,
    Run,
)
from superlink_trio.simulation.ray.settings import Settings
from superlink_trio.simulation.shares import Shares, open_shares

# How long the head node of a cluster may take to accept a connection.
_REACHING = 10.0

# The sockets of Ray lie below its directory, and the path of one may have 107 bytes (unix(7)), or
# 103 on macOS; Ray's own part of it takes up to 70.
_LONGEST_PREFIX = 14

# How long it may take, in seconds, until a cluster is joined, or a Ray of our own is there. The
# second takes 2 to 3 s, and more than a minute where 15 others want the same two processors.
_JOINING, _STARTING = 60.0, 300.0

# How long the driver's session has to end by itself, in seconds.
_GRACE = 5.0

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
        _ray_process(settings, directory) as process,
    ):
        app = attrs.evolve(app, directory=app.directory.absolute())
        capacity = await process.open(Opening(app, settings, directory))
        backend = _RayBackend(capacity, process, shares)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.receive)
            try:
                yield backend
            finally:
                backend.close()
            nursery.cancel_scope.cancel()


@attrs.frozen
class _RayProcess:
    """The process that holds Ray."""

    frames: Frames
    _process: ChildProcess

    async def open(self, opening: Opening) -> int:
        """Wait until workers have loaded the app, and give their number."""
        doing, where, patience = "Starting Ray", "on this machine", _STARTING
        if (address := opening.settings.address) is not None:
            where, patience = f"at {address}", _JOINING
            doing = f"Joining the Ray cluster {where}"
        self.frames.send(opening)
        async with told_if_slow(_log, doing):
            try:
                with trio.fail_after(patience):
                    await self._next_step()
            except trio.TooSlowError:
                raise ConnectionError(
                    f"Ray {where} did not answer within {patience:.0f} s"
                ) from None
        async with told_if_slow(_log, f"Loading {opening.app}"):
            ready = await self._next_step()
        assert isinstance(ready, Ready)
        return ready.capacity

    async def _next_step(self) -> Message:
        """Wait for what the driver has done next. Raises what has kept it from that."""
        message = await self.receive()
        match message:
            case NotOpened(error, reason):
                raise error(reason)
            case Dead(reason):
                raise BackendDied(reason)
        return message

    async def receive(self) -> Message:
        """Give the driver's next message: Dead, and why, where there is none any more."""
        try:
            return await self.frames.receive()
        except trio.EndOfChannel:
            with trio.move_on_after(_GRACE):
                await self._process.wait()
        how = self._process.ending or "closed its connection"
        return Dead("\n".join([f"the process that holds Ray {how}", *self._process.last_lines]))


@asynccontextmanager
async def _ray_process(settings: Settings, directory: Path) -> AsyncIterator[_RayProcess]:
    """Start the process; its whole session has ended when the block is left. Raises OSError."""
    process = await ChildProcess.start(_command, _environment(settings, directory))
    frames = Frames(process.stream)
    async with beside(partial(process.log_output, _log)):
        try:
            async with beside(frames.pump):
                yield _RayProcess(frames, process)
        finally:
            if left := await process.end(_GRACE):
                _log.warning("Processes of Ray do not end: %s", ", ".join(map(str, left)))


def _command(descriptor: int) -> list[str]:
    return [sys.executable, "-m", "superlink_trio.simulation.ray.driver", str(descriptor)]


def _environment(settings: Settings, directory: Path) -> Mapping[str, str]:
    environment = {**os.environ, "RAY_COLOR_PREFIX": "0", "PYTHONUNBUFFERED": "1"}
    if settings.address is None:
        # Ray listens on all interfaces, whatever it is told; this token is what guards it. One of
        # our own, so that no other Ray of this user opens with it, nor this one with theirs.
        token = directory / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        environment.pop("RAY_AUTH_TOKEN", None)
        environment |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    return environment


class _RayBackend(Backend):
    def __init__(self, capacity: int, process: _RayProcess, shares: Shares) -> None:
        self._capacity = capacity
        self._process = process
        self._shares = shares
        self._numbers = itertools.count(1)
        self._waiting: dict[int, trio.MemorySendChannel[outcome.Outcome[Done]]] = {}
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
        self._waiting[number], answer = trio.open_memory_channel["outcome.Outcome[Done]"](1)
        self._process.frames.send(
            Run(number, pickle.dumps(parcel.job), parcel.content, parcel.state, parcel.answers)
        )
        try:
            return (await answer.receive()).unwrap()
        except trio.Cancelled:
            self._process.frames.send(Cancel(number))
            raise
        finally:
            self._waiting.pop(number, None)

    async def receive(self) -> NoReturn:
        """Pass on answers until there are no more. Raises BackendDied."""
        while True:
            match await self._process.receive():
                case Done(number) as done:
                    self._answer(number, outcome.Value(done))
                case Died(number, reason):
                    self._answer(number, outcome.Error(WorkerDied(reason)))
                case Dead(reason):
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
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            waiting.send_nowait(answer)
        elif isinstance(answer, outcome.Value):
            # The job was cancelled when it had been answered already.
            remove(answer.value.content)
            remove(answer.value.state)


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
