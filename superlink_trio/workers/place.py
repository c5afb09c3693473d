"""One worker in its place, through all the lives of its process, as a supervised service."""

from __future__ import annotations

import itertools
import logging
import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import attrs
import trio

from superlink_trio.config import Address, CannotStart, ConfigError
from superlink_trio.processes import frames
from superlink_trio.processes.children import ChildProcess
from superlink_trio.workers import logs
from superlink_trio.workers.messages import (
    Happened,
    News,
    Ping,
    Ready,
    Reply,
    Request,
    Runs,
    Start,
    Stop,
    Wish,
)

_log = logging.getLogger(__name__)

# The exit status of a program whose configuration is wrong.
_USAGE = 2

# Seconds between two pings, and after which a worker that answers none counts as one that hangs.
_PING_EVERY = 5.0
_HANGS_AFTER = 30.0

# Seconds that the last of a worker's log may take. It is in the pipe already.
_LAST_LINES = 0.2


class NotTold(Exception):
    """A worker does not answer."""


class WorkerEnded(Exception):
    """A worker's process has ended, and nobody had asked it to."""


class Listener(Protocol):
    """Who is told what a worker tells without being asked."""

    def happened(self, number: int, happened: Happened) -> None:
        """Take note of a step of its tree."""

    def told(self, number: int, news: News) -> None:
        """Take note of what the others have to know."""

    def runs(self, runs: Runs) -> None:
        """Take note of the processes of runs that it has started."""

    def gone(self, number: int) -> None:
        """Take note that its process has ended."""


@attrs.define(eq=False)
class _Waiting:
    """Who waits for a reply."""

    over: trio.Event = attrs.field(factory=trio.Event)
    values: list[object] = attrs.field(factory=list)
    """What came; none where the process has ended."""

    def came(self, value: object) -> None:
        self.values.append(value)
        self.over.set()


@attrs.define(eq=False)
class _Life:
    """One process of a worker."""

    process: ChildProcess
    log: trio.lowlevel.FdStream
    """What it logs."""
    pipe: int
    """The descriptor that it has for that."""
    requests: trio.MemorySendChannel[object]
    to_send: trio.MemoryReceiveChannel[object]
    waiting: dict[int, _Waiting] = attrs.field(factory=dict)
    """By the id of the reply."""
    started_with: Start | None = None
    ready: bool = False


@attrs.define(eq=False)
class Place:
    """A worker. Each start of the service is another process."""

    number: int
    _command: Callable[[int], Sequence[str]]
    """What to run, given the descriptor of its end of the socket."""
    _start: Callable[[int], Start]
    """What it is to do, given the descriptor that its log goes to."""
    _inherited: Sequence[int]
    """Descriptors that it gets."""
    _listener: Listener
    _ids: itertools.count[int] = attrs.field(factory=itertools.count, init=False)
    _life: _Life | None = attrs.field(default=None, init=False)
    _launched: _Life | None = attrs.field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """The id of its process; None where it has none that is ready."""
        life = self._life
        return life.process.pid if life is not None and life.ready else None

    @property
    def started_with(self) -> Start | None:
        """What its process was told to do at its start; None where it has none."""
        return None if self._life is None else self._life.started_with

    async def launch(self) -> None:
        """Start a process ahead of `serve`, so that several load their code at the same time."""
        self._launched = await self._open()

    async def discard(self) -> None:
        """End what was launched, where it is not served."""
        launched, self._launched = self._launched, None
        if launched is not None:
            with trio.CancelScope(shield=True):
                await self._close(launched)

    def tell(self, wish: Wish) -> None:
        """Have something done that has no reply; nothing happens where it is not ready."""
        if self._life is not None and self._life.ready:
            self._wish(self._life, wish)

    def _wish(self, life: _Life, wish: Wish) -> int:
        request = Request(next(self._ids), wish)
        life.requests.send_nowait(request)
        return request.id

    async def ask(self, wish: Wish, patience: float) -> Any:
        """Have something done or told, within `patience` seconds. Raises NotTold."""
        life = self._life
        if life is None or not life.ready:
            raise NotTold(f"worker {self.number} is not ready")
        id, waiting = self._wish(life, wish), _Waiting()
        life.waiting[id] = waiting
        try:
            with trio.move_on_after(patience):
                await waiting.over.wait()
        finally:
            del life.waiting[id]
        if not waiting.values:
            raise NotTold(f"worker {self.number} has not answered within {patience:g} s")
        return waiting.values[0]

    async def serve(
        self, *, stopping: trio.Event, task_status: trio.TaskStatus[Mapping[str, Address]]
    ) -> None:
        """Run a process until `stopping`; `task_status` gets the addresses where it listens.

        Raises WorkerEnded if it ends by itself, CannotStart or ConfigError before it was ready.
        """
        life = self._launched or await self._open()
        self._launched, self._life = None, life
        try:
            await self._run(life, stopping, task_status)
        finally:
            self._life = None
            with trio.CancelScope(shield=True):
                await self._close(life)
            self._listener.gone(self.number)
        if not stopping.is_set():
            raise self._ended(life)

    async def _open(self) -> _Life:
        ours, theirs = os.pipe()
        log = trio.lowlevel.FdStream(ours)
        try:
            process = await ChildProcess.start(self._command, inherited=[theirs, *self._inherited])
        except BaseException:
            log.close()
            raise
        finally:
            os.close(theirs)
        return _Life(process, log, theirs, *trio.open_memory_channel[object](math.inf))

    async def _close(self, life: _Life) -> None:
        if left := await life.process.end(0.0):
            _log.error("Processes of worker %d do not end: %s", self.number, left)
        life.log.close()

    async def _run(
        self,
        life: _Life,
        stopping: trio.Event,
        task_status: trio.TaskStatus[Mapping[str, Address]],
    ) -> None:
        prefix = f"worker {self.number}: "
        async with trio.open_nursery() as nursery:
            nursery.start_soon(life.process.log_output, _log, prefix)
            logged = trio.Event()
            nursery.start_soon(self._pass_log_on, life, logged)
            life.started_with = self._start(life.pipe)
            life.requests.send_nowait(life.started_with)
            nursery.start_soon(self._send, life)
            nursery.start_soon(self._listen, life, task_status)
            nursery.start_soon(self._stop_when_asked, life, stopping)
            nursery.start_soon(self._watch, life)
            await life.process.wait()
            for waiting in life.waiting.values():
                waiting.over.set()
            with trio.move_on_after(_LAST_LINES):
                await logged.wait()
            nursery.cancel_scope.cancel()

    async def _pass_log_on(self, life: _Life, logged: trio.Event) -> None:
        await logs.pass_on(life.log)
        logged.set()

    async def _send(self, life: _Life) -> None:
        async for message in life.to_send:
            try:
                await life.process.stream.send_all(frames.pack(message))
            except trio.BrokenResourceError:
                return  # its end is noticed elsewhere

    async def _listen(
        self, life: _Life, task_status: trio.TaskStatus[Mapping[str, Address]]
    ) -> None:
        receiver = frames.Receiver(life.process.stream)
        while True:
            try:
                message = await receiver.receive()
            except (EOFError, trio.BrokenResourceError):
                return  # its end is noticed elsewhere
            match message:
                case Ready(addresses):
                    life.ready = True
                    task_status.started(addresses)
                case Happened() as happened:
                    self._listener.happened(self.number, happened)
                case Runs() as runs:
                    self._listener.runs(runs)
                case News() as news:
                    self._listener.told(self.number, news)
                case Reply(id, value) if id in life.waiting:
                    life.waiting[id].came(value)

    async def _stop_when_asked(self, life: _Life, stopping: trio.Event) -> None:
        await stopping.wait()
        # No signal: whoever sends one to all of its group, as systemd does, has sent it already,
        # and a second one would cut calls short.
        self._wish(life, Stop())

    async def _watch(self, life: _Life) -> None:
        while True:
            await trio.sleep(_PING_EVERY)
            if not life.ready:
                continue
            try:
                await self.ask(Ping(), _HANGS_AFTER)
            except NotTold as error:
                _log.error("%s: it is ended", error)
                life.process.send_signal(signal.SIGKILL)
                return

    def _ended(self, life: _Life) -> Exception:
        ending = f"worker {self.number} {life.process.ending or 'does not end'}"
        if life.ready:
            return WorkerEnded(ending)
        if life.process.status == _USAGE:
            return ConfigError(f"{ending}: its lines above say what is wrong", "workers")
        return CannotStart(f"{ending}: its lines above say why")
