"""The process that holds Ray: `python -m superlink_trio.simulation.ray.driver FD`.

Ray belongs in no process that has anything to lose. When its control store (GCS) ends, Ray's C++
ends the process with it; it sets signal handlers, an excepthook and an exit handler. So it lives
here, at the other end of the socket FD, and this process leads a session of its own that ends as a
whole: when the socket closes, whoever closed it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import attrs
import ray
import trio

from superlink_trio.logs.wording import leaves
from superlink_trio.processes.sessions import end_own_session
from superlink_trio.simulation.backend import AppNotLoaded
from superlink_trio.simulation.ray import shipping
from superlink_trio.simulation.ray.actor import Actor
from superlink_trio.simulation.ray.pool import NoWorker, Pool
from superlink_trio.simulation.ray.protocol import (
    Cancel,
    Connected,
    Dead,
    Frames,
    NotOpened,
    Opening,
    Ready,
    Run,
)
from superlink_trio.simulation.ray.settings import fitting

# How often Ray's daemons are looked after, in seconds: ours with a system call, a cluster's with a
# question to it.
_OUR_DAEMONS, _CLUSTER = 0.1, 5.0

# Ray's threads and Trio's wait for each other for every job: by turns this short, in seconds, 7 %
# more small jobs are done than by the default of 5 ms.
_SWITCH = 0.0002

# How long processes may take to be gone after SIGKILL, in seconds.
_ENDING = 3.0

# How often a Ray of our own is tried to start, and what Ray says when it took too long.
_TRIES, _TOO_SLOW = 3, "timed out during startup"


def main() -> None:
    """Run until the SuperLink closes the connection, then end everything in this session."""
    _ignore_signals()
    sys.setswitchinterval(_SWITCH)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    try:
        opening = trio.run(_drive, connection)
        if opening is not None and opening.settings.address is not None:
            ray.shutdown()
    finally:
        end_own_session(_ENDING)
    if opening is not None:
        shutil.rmtree(opening.directory, ignore_errors=True)
    # No exit handlers: Ray's would look for daemons that are gone.
    os._exit(0)


async def _drive(connection: socket.socket) -> Opening | None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(connection))
    frames = Frames(stream)
    opening: Opening | None = None
    try:
        first = await frames.receive()
        assert isinstance(first, Opening)
        opening = first
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frames.pump)
            pool = Pool(lambda: _actor(first), frames)
            nursery.start_soon(_hold, first, frames, pool)
            await _handle_requests(frames, pool)
    except* trio.EndOfChannel:
        pass  # the SuperLink has closed the connection, or is no more
    return opening


async def _handle_requests(frames: Frames, pool: Pool) -> None:
    """Run and cancel jobs until the SuperLink closes the connection."""
    while True:
        match await frames.receive():
            case Run() as request:
                pool.run(request)
            case Cancel(number):
                pool.cancel(number)


async def _hold(opening: Opening, frames: Frames, pool: Pool) -> None:
    """Keep Ray and the pool up, and report to the SuperLink when that is over."""
    try:
        _connect(opening)
        frames.send(Connected())
        size = _size(opening)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_cluster if opening.settings.address else _watch_daemons)
            capacity = await nursery.start(pool.serve, size)
            frames.send(Ready(capacity))
    except* (AppNotLoaded, ValueError, ConnectionError) as group:
        error = next(leaves(group))
        assert isinstance(error, Exception)
        frames.send(NotOpened(type(error), str(error)))
    except* (NoWorker, _Lost) as group:
        frames.send(Dead(str(next(leaves(group)))))


class _Lost(Exception):
    """Ray is gone, or this machine's part of it."""


def _connect(opening: Opening) -> None:
    """Start a Ray, or join one.

    In the main thread: Linux ends Ray's daemons when the thread ends that started them.
    """
    settings, worker = opening.settings, opening.settings.worker
    common: dict[str, Any] = {
        "log_to_driver": not worker.muted,
        "logging_level": "warning" if worker.silent or worker.muted else "info",
        "logging_format": "%(message)s",
    }
    try:
        if settings.address is None:
            _start(_temp_dir=str(opening.directory), **settings.init, **common)
        else:
            package = shipping.stage(opening.app.directory, opening.directory / "app")
            ray.init(address=settings.address, runtime_env={"working_dir": str(package)}, **common)
    except Exception as error:  # a node that starts too slowly is a bare Exception of Ray's
        if settings.address is None:
            raise ConnectionError(f"Ray cannot be started: {error}") from error
        raise ConnectionError(
            f"Ray at {settings.address}: {error} (is this machine one of the cluster's, and the "
            "cluster's token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH?)"
        ) from error
    finally:
        _ignore_signals()


def _start(**settings: Any) -> None:
    """Start a Ray; it gives itself 30 s for that, which on a busy machine may be too little."""
    for tries_left in reversed(range(_TRIES)):
        try:
            ray.init(address="local", include_dashboard=False, **settings)
        except Exception as error:
            if not (tries_left and _TOO_SLOW in str(error)):
                raise
            ray.shutdown()
        else:
            return


def _ignore_signals() -> None:
    # Whoever runs the SuperLink signals that; it then closes the connection. A handler that does
    # nothing, and not SIG_IGN, which the processes started here would inherit.
    def ignore(number: int, frame: FrameType | None) -> None:
        pass

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ignore)


def _size(opening: Opening) -> int:
    takes = opening.settings.resources
    nodes = [node["Resources"] for node in _nodes() if node["Alive"]]
    size = fitting(takes, nodes)
    if not size:
        has = "; ".join(_described(node) for node in nodes)
        raise ValueError(
            f"client_resources: no node has {_described(takes)} for a worker (Ray has {has})"
        )
    return size


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _described(resources: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {amount:g}"
        for name, amount in sorted(resources.items())
        if amount and not name.startswith("node:")
    )


def _actor(opening: Opening) -> Any:
    takes = dict(opening.settings.resources)
    named = {"num_cpus": takes.pop("CPU", 0), "num_gpus": takes.pop("GPU", 0)}
    if "memory" in takes:
        named["memory"] = takes.pop("memory")
    # Nobody reads task events here, and keeping them costs 6 % of small jobs.
    options = {**named, "resources": takes, "max_restarts": 0, "enable_task_events": False}
    return (
        ray.remote(Actor)
        .options(**options)
        .remote(
            opening.app,
            # What is muted goes to Ray's log files, and no further.
            attrs.evolve(opening.settings.worker, muted=False),
            shipped=opening.settings.address is not None,
        )
    )


async def _watch_daemons() -> None:
    # The only place that says which processes Ray has started; a test fails when it moves.
    node: Any = ray._private.worker._global_node
    started = node.all_processes
    vital = {name: started[name][0].process for name in ("gcs_server", "raylet")}
    while True:
        for name, process in vital.items():
            status = process.poll()
            if status is not None:
                raise _Lost(f"Ray's {name} ended with status {status}")
        await trio.sleep(_OUR_DAEMONS)


async def _watch_cluster() -> None:
    own = ray.get_runtime_context().get_node_id()
    while True:
        nodes = await trio.to_thread.run_sync(_nodes, abandon_on_cancel=True)
        if not any(node["NodeID"] == own and node["Alive"] for node in nodes):
            raise _Lost("this machine is no longer a node of the Ray cluster")
        await trio.sleep(_CLUSTER)


if __name__ == "__main__":
    main()
