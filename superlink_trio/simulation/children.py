"""Processes that the SuperLink starts for its simulated nodes: how they begin and end.

Each leads a session of its own: a Ctrl-C on the terminal is for the SuperLink alone, and whatever
it starts can be ended with it. A socket connects it with the SuperLink. When that closes, whoever
closed it, the process ends by itself.
"""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence

import trio

from superlink_trio.processes.sessions import kill_session, members

# How long a process has to end its session itself even if there is no time left, in seconds: it
# waits for its children, for which nobody else does where there is no init.
_AT_LEAST = 0.3

# How long a session may take to be gone after SIGKILL, in seconds.
_KILLED = 1.0


async def start(
    command: Callable[[int], Sequence[str]],
    *,
    env: Mapping[str, str] | None = None,
    output_to_pipe: bool = False,
) -> tuple[trio.Process, trio.SocketStream]:
    """Start a process; give it, and our end of the socket.

    `command`: what to run, given the descriptor of its end. With `output_to_pipe` what it prints
    goes to `process.stdout`, otherwise to where ours goes. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        with theirs:
            process = await trio.lowlevel.open_process(
                command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if output_to_pipe else None,
                stderr=subprocess.STDOUT if output_to_pipe else None,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=env,
            )
    except BaseException:
        ours.close()
        raise
    return process, stream


async def end(process: trio.Process, stream: trio.SocketStream, grace: float) -> list[int]:
    """See a process end with its whole session; give the ids of those that do not.

    It may end by itself within `grace` seconds; if this is cancelled, it has to be quick.
    """
    try:
        stream.socket.close()
        with trio.move_on_after(grace):
            await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            with trio.move_on_after(_AT_LEAST):
                await process.wait()
            left = await _kill(process)
    return left


def how_ended(process: trio.Process) -> str:
    """Describe the end of a process, as what follows its name; empty while it runs."""
    status = process.returncode
    if status is None:
        return ""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


async def _kill(process: trio.Process) -> list[int]:
    with trio.move_on_after(_KILLED):
        kill_session(process.pid)
        await process.wait()
        while members(process.pid):
            await trio.sleep(0.01)
            kill_session(process.pid)
    if process.stdout is not None:
        await process.stdout.aclose()
    return members(process.pid)
