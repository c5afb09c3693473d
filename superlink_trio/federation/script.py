"""Federated rounds in a script: `start_server` blocks, ends by signals, and shows what goes on."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Unpack, cast, overload

import trio

from superlink_trio.federation.history import History
from superlink_trio.federation.protocols import (
    ClientManagerLike,
    ConfigLike,
    HistoryLike,
    ServerLike,
    StrategyLike,
)
from superlink_trio.federation.rounds import (
    MESSAGE_LIMIT,
    Federation,
    Options,
    prepare,
    unwrapped,
)
from superlink_trio.federation.server import Server
from superlink_trio.logs import rendering

if TYPE_CHECKING:
    from superlink_trio.federation.bar import Bar

_log = logging.getLogger(__name__)

# What ends a script, and what stands there while the script has set no handler.
_ENDING = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM has ended a run in order; `history` holds what it had come to."""

    history: History
    """That of `flwr`, where it was a server of `flwr` and it had just finished."""

    def __init__(self, history: History) -> None:
        super().__init__("the rounds were interrupted")
        self.history = history


class Terminated(Interrupted, SystemExit):
    """It was SIGTERM: where nobody catches this, the script ends with 143, as shells have it."""

    def __init__(self, history: History) -> None:
        super().__init__(history)
        self.code = 128 + signal.SIGTERM


@overload
def start_server(*, server: Server | None = ..., **options: Unpack[Options]) -> History: ...


@overload
def start_server(*, server: ServerLike, **options: Unpack[Options]) -> HistoryLike: ...


def start_server(
    *,
    server_address: str = "[::]:8080",
    server: ServerLike | None = None,
    config: ConfigLike | None = None,
    strategy: StrategyLike | None = None,
    client_manager: ClientManagerLike | None = None,
    grpc_max_message_length: int = MESSAGE_LIMIT,
    certificates: tuple[bytes, bytes, bytes] | None = None,
) -> HistoryLike:
    """Run federated rounds in a script, and return their History when they are over.

    The arguments and errors are those of `serve_rounds`. Where logging is not configured, the log
    and, on a terminal, a line with the progress appear on standard error.

    Ctrl-C and SIGTERM stop in order, and raise Interrupted with the History so far; after SIGTERM
    it is a SystemExit, too. A signal that the script handles or ignores stays as it is; outside of
    the main thread both do.

    Raises RuntimeError where an event loop runs in this thread already, as it does in a notebook.
    """
    _check_no_loop()
    with _shown() as bar:
        federation = prepare(
            *(server_address, server, config, strategy, client_manager),
            *(grpc_max_message_length, certificates, bar),
        )
        main = partial(_run_script, federation, _unhandled_signals(), bar)
        by = trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
    if by is signal.SIGTERM:
        raise Terminated(cast(History, federation.history))
    if by is signal.SIGINT:
        raise Interrupted(cast(History, federation.history))
    return federation.history


def _check_no_loop() -> None:
    if _runs_in_trio():
        raise RuntimeError("start_server blocks Trio: await serve_rounds(...) instead")
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        "start_server blocks the asyncio loop that runs here (a notebook has one):"
        " await asyncio.to_thread(start_server, ...) instead"
    )


def _runs_in_trio() -> bool:
    # `trio.lowlevel.in_trio_run` came with Trio 0.29.
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        return False
    return True


def _unhandled_signals() -> list[signal.Signals]:
    """Find the signals that would end the script, because it has not said what they shall do."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [number for number, default in _ENDING.items() if signal.getsignal(number) == default]


async def _run_script(
    federation: Federation, signals: Sequence[signal.Signals], bar: Bar | None
) -> signal.Signals | None:
    """Run until the end, or until one of the signals comes, which is given then."""
    ended_by: signal.Signals | None = None

    async def stop_on_signal(
        scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]
    ) -> None:
        nonlocal ended_by
        with trio.open_signal_receiver(*signals) as arriving:
            task_status.started()
            async for number in arriving:
                # Another one changes nothing: this is over in a second.
                if ended_by is None:
                    ended_by = signal.Signals(number)
                    _log.info("Ended by %s: clients are told to disconnect", ended_by.name)
                    scope.cancel()

    with unwrapped():
        async with trio.open_nursery() as nursery:
            if bar is not None:
                nursery.start_soon(bar.show)
            with trio.CancelScope() as scope:
                if signals:
                    await nursery.start(stop_on_signal, scope)
                await federation.run()
            nursery.cancel_scope.cancel()
    return ended_by


@contextmanager
def _shown() -> Iterator[Bar | None]:
    """Show the log inside the block, unless the script has its own idea of logging.

    Gives a bar where standard error is a terminal.
    """
    if logging.getLogger("superlink_trio").hasHandlers():
        yield None
        return
    if not sys.stderr.isatty():
        with rendering.shown():
            yield None
        return
    # What draws takes a tenth of a second to import.
    from superlink_trio.federation.bar import Bar
    from superlink_trio.logs.live import Terminal

    terminal = Terminal(sys.stderr)
    with rendering.shown(terminal):
        yield Bar(terminal)
