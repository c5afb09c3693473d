"""What runs in each worker of the `process` backend: one request after the other, until the end.

The SuperLink ends by SIGKILL at times, and an app may be at work then. So a thread listens at the
socket: when it closes, an idle worker may put away what it has, a busy one ends at once, and either
takes with it whatever its app has started. Needs no Trio, so that it starts quickly.
"""

from __future__ import annotations

import atexit
import io
import os
import queue
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import attrs

from superlink_trio.processes import frames
from superlink_trio.processes.sessions import end_own_session
from superlink_trio.simulation import parcels, worker
from superlink_trio.simulation.backend import App, AppNotLoaded
from superlink_trio.simulation.parcels import Answer, Parcel
from superlink_trio.simulation.worker import WorkerSettings

GRACE = 2.0
"""Seconds that an idle worker gets to end by itself; an app may have something to put away."""

# How long what an app has started may take to be gone after SIGKILL, in seconds.
_ENDING = 1.0


@attrs.frozen
class Start:
    """The first request: load the app. It is answered by a traceback, or None if that went well."""

    app: App
    settings: WorkerSettings


Request: TypeAlias = Start | Parcel


def main() -> None:
    """Work until the SuperLink closes the connection."""
    connection = socket.socket(fileno=int(sys.argv.pop()))
    connection.set_inheritable(False)
    # What an app prints is logged, and that when it does.
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)
    # A copy of the socket in a process that an app has forked would hide the end of this one.
    os.register_at_fork(after_in_child=partial(_let_go, connection))
    # Exit handlers run in the reverse order: after those of the app.
    atexit.register(end_own_session, _ENDING)
    requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
    at_work = threading.Lock()
    threading.Thread(target=_listen, args=(connection, requests, at_work), daemon=True).start()
    app: App | None = None
    while (request := requests.get()) is not None:
        answer: Answer | str | None
        with at_work:
            if isinstance(request, Start):
                app = request.app
                answer = _start(request)
            else:
                assert app is not None, "Start comes first"
                answer = parcels.run(app, request)
            with suppress(OSError):  # nobody waits for it: there will be no other request
                connection.sendall(frames.pack(answer))


def _let_go(connection: socket.socket) -> None:
    # Not `close`, which waits for the file that is made of it.
    descriptor = connection.detach()
    if descriptor >= 0:
        os.close(descriptor)


def _start(request: Start) -> str | None:
    try:
        worker.start(request.app, request.settings)
    except AppNotLoaded as error:
        return str(error)
    return None


def _listen(
    connection: socket.socket,
    requests: queue.SimpleQueue[Request | None],
    at_work: threading.Lock,
) -> None:
    try:
        with connection.makefile("rb") as file:
            while True:
                requests.put(frames.read(file))
    except (EOFError, OSError):
        requests.put(None)
    if not at_work.locked():
        time.sleep(GRACE)
    end_own_session(_ENDING)
    os.kill(os.getpid(), signal.SIGKILL)
