"""Processes of this package that a SuperLink starts: how they begin, speak and end.

Each leads a session of its own: a Ctrl-C on the terminal is for the SuperLink alone, and whatever
it starts can be ended with it. A socket connects it with the SuperLink. When that closes, whoever
closed it, the process ends by itself. What it prints goes to the log, line by line.
"""

from __future__ import annotations

import logging
import re
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

import attrs
import trio

from superlink_trio.processes.ending import end_session

# How long a process has to end its session itself even if there is no time left, in seconds: it
# waits for its children, for which nobody else does where there is no init.
_AT_LEAST = 0.3

# How long a session may take to be gone after SIGKILL, in seconds.
_KILLED = 1.0

# How long the last of what was printed may take to be read, in seconds. It is there already; the
# end of it may not come, if somebody has left the session.
_LAST_WORDS = 0.2

# Lines that are kept, for whoever reports the end of a process.
_KEPT_LINES = 10

# Bytes of a line; what is longer is logged as several.
_LONGEST_LINE = 65536

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def python(module: str, *words: str) -> Callable[[int], Sequence[str]]:
    """Give the command that runs a module's `main`, for `ChildProcess.start`.

    It finds modules where this process does. Its end of the socket is the last of its words.
    """
    program = f"import sys; sys.path[:] = {sys.path!r}; from {module} import main; main()"
    return lambda descriptor: [sys.executable, "-c", program, *words, str(descriptor)]


@attrs.define(eq=False)
class ChildProcess:
    """A process that was started, and our end of the socket."""

    _process: trio.Process
    stream: trio.SocketStream
    last_lines: deque[str] = attrs.field(factory=lambda: deque(maxlen=_KEPT_LINES), init=False)
    """What it printed last."""
    _silent: trio.Event = attrs.field(factory=trio.Event, init=False)

    @classmethod
    async def start(
        cls,
        command: Callable[[int], Sequence[str]],
        env: Mapping[str, str] | None = None,
        inherited: Iterable[int] = (),
    ) -> ChildProcess:
        """Start a process. `command`: what to run, given the descriptor of its end.

        It has the descriptors that are `inherited` too. `log_output` has to run beside it. Raises
        OSError.
        """
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        try:
            with theirs:
                process = await trio.lowlevel.open_process(
                    command(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[theirs.fileno(), *inherited],
                    start_new_session=True,
                    env=env,
                )
        except BaseException:
            ours.close()
            raise
        return cls(process, stream)

    @property
    def pid(self) -> int:
        """Its process id, and that of its session."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    @property
    def ending(self) -> str:
        """How it ended, as what follows its name; empty while it runs."""
        status = self._process.returncode
        if status is None:
            return ""
        if status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to it alone; nothing happens where it has ended."""
        self._process.send_signal(number)

    async def wait(self) -> None:
        """Wait for its end."""
        await self._process.wait()

    async def log_output(self, log: logging.Logger, prefix: str = "") -> None:
        """Log what it and its children print, until there is nobody left who could."""
        assert self._process.stdout is not None
        unfinished = b""
        try:
            with suppress(trio.ClosedResourceError):  # they are not waited for any more
                async for chunk in self._process.stdout:
                    *lines, unfinished = (unfinished + chunk).split(b"\n")
                    if len(unfinished) > _LONGEST_LINE:
                        lines, unfinished = [*lines, unfinished], b""
                    for line in lines:
                        self._log_line(log, prefix, line)
        finally:
            self._log_line(log, prefix, unfinished)
            self._silent.set()

    def _log_line(self, log: logging.Logger, prefix: str, line: bytes) -> None:
        # A bar that moves writes itself again and again: what stands there in the end counts.
        text = line.decode(errors="replace").rstrip().rpartition("\r")[-1]
        if text := _COLOURS.sub("", text).rstrip():
            self.last_lines.append(text)
            log.info("%s", prefix + text, extra={"pid": self.pid})

    async def end(self, grace: float) -> list[int]:
        """See it end with its whole session; give the ids of those that do not.

        It may end by itself within `grace` seconds; if this is cancelled, it has to be quick.
        """
        try:
            self.stream.socket.close()
            with trio.move_on_after(grace):
                await self.wait()
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(_AT_LEAST):
                    await self.wait()
                left = await self._kill()
        return left

    async def _kill(self) -> list[int]:
        left = await end_session(self.pid, _KILLED)
        with trio.move_on_after(_KILLED):
            await self.wait()
        with trio.move_on_after(_LAST_WORDS):
            await self._silent.wait()
        assert self._process.stdout is not None
        await self._process.stdout.aclose()
        return left
