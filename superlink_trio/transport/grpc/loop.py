"""The asyncio loop that grpc.aio runs on, which itself runs on Trio.

trio-asyncio provides such a loop. Its stock scheduler hands out one callback for each pass through
Trio's, and a gRPC call consists of dozens: `BatchingLoop` runs whatever is ready in bounded batches
instead, which is worth about three times the calls a second.

`open_loop` adds what a server in somebody else's program needs: an error that belongs to nobody
goes to the log instead of ending the tree, and several loops in one Trio run can serve gRPC.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import os
import socket
import types
import warnings
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, TypeVarTuple

import trio
import trio_asyncio  # type: ignore[import-untyped]  # ships no types
from sniffio import thread_local as current_library
from trio.lowlevel import Abort, enable_ki_protection
from trio_asyncio._handles import AsyncHandle  # type: ignore[import-untyped]  # ships no types

if TYPE_CHECKING:
    _T = TypeVar("_T")

    class TrioEventLoop(asyncio.SelectorEventLoop):
        """What is used of trio-asyncio's loop. Names with an underscore are private to it."""

        _closed: bool
        _nursery: trio.Nursery
        _timers: list[asyncio.TimerHandle]
        _token: trio.lowlevel.TrioToken
        _signal_handlers: dict[int, asyncio.Handle]

        def __init__(self, queue_len: int | None = None) -> None: ...
        def _check_closed(self) -> None: ...
        async def synchronize(self) -> None: ...  # noqa: D102
        async def run_aio_coroutine(self, coro: Coroutine[Any, Any, _T]) -> _T: ...  # noqa: D102

else:
    from trio_asyncio import TrioEventLoop

_log = logging.getLogger(__name__)

# Series of trio-asyncio whose own test-suite passes with BatchingLoop in place of its loop.
TESTED_SERIES = ("0.15", "0.16")

# Callbacks run before other Trio tasks have their turn. A gRPC call takes about 20 of them, 10 µs
# each: a batch keeps the others waiting for about 5 ms at most.
BATCH = 512

# Rounds of gRPC's events, and of what they set in motion, before other Trio tasks have their turn.
# Under load the next events are there when a round ends: taking them at once spares Trio's
# scheduler, and its two system calls, for each of them.
ROUNDS = 16

_Args = TypeVarTuple("_Args")
ErrorHandler: TypeAlias = Callable[[Mapping[str, Any]], None]


class BatchingLoop(TrioEventLoop):
    """trio-asyncio's loop with a scheduler that runs callbacks in batches.

    Callbacks wait in one queue. They are run by the loop's own task, and also on the spot by the
    tasks that watch file descriptors: what an event sets in motion is done before that task goes
    back to sleep, without a switch to another one.

    The methods that touch the queue are protected against KeyboardInterrupt: one that arrived
    between two of their steps would leave the loop asleep for ever. Trio delivers it elsewhere.
    """

    def __init__(self, queue_len: int | None = None) -> None:
        super().__init__(queue_len)
        self._callbacks: deque[asyncio.Handle] = deque()
        self._sleeper: trio.lowlevel.Task | None = None
        self._sleeps_until = math.inf

    @enable_ki_protection
    def _queue_handle(self, handle: asyncio.Handle) -> asyncio.Handle:
        self._check_closed()
        self._append(handle)
        return handle

    @enable_ki_protection
    def call_soon(
        self,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Run `callback(*args)` after what is queued already."""
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Run `callback(*args)` soon; may be called from any thread."""
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._token.run_sync_soon(self._append_unless_closed, handle)
        return handle

    def _handle_sig(self, sig: int, _frame: object) -> None:
        self._token.run_sync_soon(self._append_unless_closed, self._signal_handlers[sig])

    def _append_unless_closed(self, handle: asyncio.Handle) -> None:
        # Between run_sync_soon and now the loop may have closed, and an error raised here would
        # be Trio's internal error.
        if not self._closed:
            self._append(handle)

    def _append(self, handle: asyncio.Handle) -> None:
        self._callbacks.append(handle)
        if self._sleeper is not None:
            sleeper, self._sleeper = self._sleeper, None
            trio.lowlevel.reschedule(sleeper)

    @enable_ki_protection
    async def _main_loop_one(self, no_wait: bool = False) -> None:
        self._run_batch()
        if self._callbacks:
            # The loop runs inside a shield of trio-asyncio's, so there is nothing to be cancelled.
            await trio.lowlevel.cancel_shielded_checkpoint()
        elif no_wait:
            raise trio.WouldBlock
        else:
            await self._sleep()

    async def _sleep(self) -> None:
        """Wait until a callback is queued or the next timer is due."""

        def abort(_raise_cancel: object) -> Abort:
            self._sleeper = None
            return Abort.SUCCEEDED

        self._sleeper = trio.lowlevel.current_task()
        self._sleeps_until = self._next_timer()
        with trio.CancelScope(deadline=self._sleeps_until):
            await trio.lowlevel.wait_task_rescheduled(abort)

    def _next_timer(self) -> float:
        return self._timers[0].when() if self._timers else math.inf

    def _run_batch(self) -> None:
        """Run the timers that are due, then callbacks until the queue or the batch is exhausted."""
        callbacks = self._callbacks
        library, current_library.name = current_library.name, "asyncio"
        try:
            # Timers first: under full load the queue may never be empty.
            now = self.time()
            while self._next_timer() <= now:
                _run(heapq.heappop(self._timers))
            for _ in range(BATCH):
                if not callbacks:
                    return
                handle = callbacks.popleft()
                if isinstance(handle, asyncio.TimerHandle):
                    heapq.heappush(self._timers, handle)
                elif isinstance(handle, AsyncHandle):
                    start = self._nursery.start_soon
                    handle._context.run(start, handle._run, name=handle._callback)
                else:
                    _run(handle)
        finally:
            current_library.name = library

    @enable_ki_protection
    async def _io_task(
        self,
        fd: int,
        handle: asyncio.Handle,
        wait_ready: Callable[[int], Awaitable[None]],
    ) -> None:
        # Callbacks run in this task, and get_running_loop() goes by the task's own context, which
        # is that of whoever called add_reader: possibly inside another loop.
        trio_asyncio.current_loop.set(self)
        with handle._scope:  # type: ignore[attr-defined]  # a ScopedHandle of trio-asyncio
            try:
                # Replaced or removed before this task first ran, or while it slept: then another
                # task may be waiting for the same descriptor already.
                while not handle.cancelled():
                    await wait_ready(fd)
                    if handle.cancelled():
                        return
                    self._run_here(handle)
                    if self._callbacks:
                        # What reads the descriptor may be among them: waiting again now would
                        # report the same event again.
                        await self.synchronize()
            except Exception as error:
                # A reader may be removed and its descriptor closed before this task notices.
                if not (isinstance(error, OSError) and handle.cancelled()):
                    handle._raise(error)  # type: ignore[attr-defined]

    def _run_here(self, handle: asyncio.Handle) -> None:
        """Run a callback, and what it queues, in the current task instead of the loop's own."""
        # The loop's own task is left asleep while this runs, and woken only for what remains.
        sleeper, self._sleeper = self._sleeper, None
        library, current_library.name = current_library.name, "asyncio"
        try:
            handle._run()
            self._run_batch()
        except BaseException as error:
            # SystemExit (which also stops the loop) and the like concern the loop's own task.
            self._callbacks.appendleft(asyncio.Handle(_raise, (error,), self))
        finally:
            current_library.name = library
            if sleeper is not None:
                if self._callbacks or self._next_timer() < self._sleeps_until:
                    trio.lowlevel.reschedule(sleeper)
                else:
                    self._sleeper = sleeper


def _run(handle: asyncio.Handle) -> None:
    if not handle.cancelled():
        handle._run()


def _raise(error: BaseException) -> None:
    raise error


@asynccontextmanager
async def open_loop(*, on_error: ErrorHandler | None = None) -> AsyncIterator[TrioEventLoop]:
    """Run an asyncio loop inside the block, as `trio_asyncio.open_loop` does.

    Any number of these, and of trio-asyncio's own, may be open in one Trio run and serve gRPC.
    Every gRPC server must have been stopped, in full, before the block is left: grpc joins its
    poller thread otherwise, and never returns.

    An error in a callback or a forgotten task, which has no caller to go to, is logged with its
    traceback. `on_error` is told as well; it gets the context that asyncio hands to exception
    handlers.

    Warns (RuntimeWarning) and runs trio-asyncio's own, slower scheduler when trio-asyncio's
    version is not among those that were tested.
    """
    twins: dict[int, socket.socket] = {}
    try:
        async with _opener()() as loop:
            loop.set_exception_handler(_reporter(on_error))
            _wait_on_twins(loop, twins)
            yield loop
    finally:
        for twin in twins.values():
            twin.close()


def _opener() -> Callable[[], AbstractAsyncContextManager[TrioEventLoop]]:
    """Return a function that opens a BatchingLoop, or the stock one under an unknown version."""
    version = trio_asyncio.__version__
    if ".".join(version.split(".")[:2]) not in TESTED_SERIES:
        warnings.warn(
            f"trio-asyncio {version} is unknown to superlink-trio, which was tested with "
            f"{' and '.join(TESTED_SERIES)}: serving gRPC with its own, slower scheduler",
            RuntimeWarning,
            stacklevel=5,
        )
        stock: Callable[[], AbstractAsyncContextManager[TrioEventLoop]] = trio_asyncio.open_loop
        return stock
    # trio-asyncio's open_loop, whose start and shutdown are subtle, names its loop's class. This
    # is the same function with that one name bound to ours: nothing of trio-asyncio is changed
    # for the rest of the program.
    function = trio_asyncio.open_loop.__wrapped__
    names = {**function.__globals__, "TrioEventLoop": BatchingLoop}
    return asynccontextmanager(
        types.FunctionType(function.__code__, names, "open_loop", function.__defaults__)
    )


def _reporter(on_error: ErrorHandler | None) -> Callable[[object, Mapping[str, Any]], None]:
    """Build an exception handler. trio-asyncio's own would raise the error in the loop's tree."""

    def report(_loop: object, context: Mapping[str, Any]) -> None:
        details = {
            key: value for key, value in context.items() if key not in ("message", "exception")
        }
        _log.error(
            "asyncio: %s %s", context.get("message"), details, exc_info=context.get("exception")
        )
        if on_error is None:
            return
        try:
            on_error(context)
        except Exception:
            _log.exception("the handler of asyncio's errors failed")

    return report


def _wait_on_twins(loop: TrioEventLoop, twins: dict[int, socket.socket]) -> None:
    """Let `loop` wait for grpc's wake-up socket without keeping other loops from it.

    The socket belongs to the process, every loop that uses grpc.aio waits for it, and Trio allows
    one task to wait for a descriptor. So each loop waits on a duplicate of its own. These
    are kept in `twins` by the original's number, for the caller to close after the loop.
    """
    add_reader, remove_reader = loop.add_reader, loop.remove_reader
    if isinstance(loop, BatchingLoop):
        rounds, run_batch = ROUNDS, loop._run_batch
    else:
        rounds, run_batch = 1, _nothing

    def add(fd: Any, callback: Callable[..., object], *args: Any) -> None:
        if not _is_grpc_wakeup(callback):
            return add_reader(fd, callback, *args)
        number = _fileno(fd)
        twin = twins.get(number)
        if twin is None:
            twin = twins[number] = socket.socket(fileno=os.dup(number))
            twin.setblocking(False)  # no change for grpc: its own end is non-blocking already

        def wake() -> None:
            # If there is no byte, another loop was faster: grpc hands every event to the loop it
            # belongs to. One that is written after this wakes it again.
            with suppress(BlockingIOError):
                for _ in range(rounds):
                    if twins.get(number) is not twin:
                        return  # removed, and closed, by what the last round has set in motion
                    # grpc writes a byte for every event, reads one a call if there is one, and then
                    # handles every event there is: to take all of them first saves as many calls.
                    twin.recv(65536)
                    _hand_out(partial(callback, *args))
                    run_batch()

        return add_reader(twin, wake)

    def remove(fd: Any) -> bool:
        twin = twins.pop(_fileno(fd), None)
        if twin is None:
            return remove_reader(fd)
        try:
            return remove_reader(twin)
        finally:
            twin.close()

    # On the object, not in a class: so it serves whatever loop trio-asyncio opens.
    vars(loop).update(add_reader=add, remove_reader=remove)


def _hand_out(events: Callable[[], object]) -> None:
    """Let grpc hand every event to its loop, those behind one for a closed loop included."""
    while True:
        try:
            events()
        except RuntimeError as error:
            # Each time there is one event less: what is left of a call, in a loop that another
            # part of the program has closed since. It concerns nobody any more.
            _log.debug("a gRPC event came too late: %s", error)
        else:
            return


def _nothing() -> None:
    """Leave callbacks to the stock scheduler."""


def _is_grpc_wakeup(callback: Callable[..., object]) -> bool:
    # A bound method of grpc's completion queue, inside a functools.partial since grpcio 1.33.
    function = getattr(callback, "func", callback)
    return getattr(function, "__name__", "") == "_handle_events"


def _fileno(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())
