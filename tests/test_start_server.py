"""start_server in scripts: what they print, and how signals end them."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import trio
from threaded_clients import Clients, open_clients

from superlink_trio import Interrupted, start_server

ANY_PORT = "127.0.0.1:0"
PAGE = (Path(__file__).parents[1] / "docs" / "federation.md").read_text(encoding="utf-8")
SCRIPT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0].replace("8080", "0")


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    async with open_clients() as clients:
        yield clients


@attrs.define
class Script:
    """A script in a process of its own, and what it has written so far."""

    process: trio.Process
    out: str = ""
    err: str = ""
    _news: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    _over: trio.Event = attrs.field(factory=trio.Event)

    async def read(self) -> None:
        """Read until the end."""
        async with trio.open_nursery() as nursery:
            for name in ("out", "err"):
                if (stream := getattr(self.process, f"std{name}")) is not None:
                    nursery.start_soon(self._read, name, stream)
        self._over.set()
        self._news.unpark_all()

    async def logs(self, pattern: str) -> re.Match[str]:
        """Wait for it to write this to standard error."""
        while (found := re.search(pattern, self.err)) is None:
            assert not self._over.is_set(), f"it ended, and never wrote {pattern}:\n{self.err}"
            await self._news.park()
        return found

    async def address(self) -> str:
        """Wait until clients can join; gives where."""
        return (await self.logs(r"Listening on (\S+),"))[1]

    async def end(self) -> int:
        """Wait for its end; gives its exit status."""
        await self._over.wait()
        return await self.process.wait()

    async def _read(self, name: str, stream: trio.abc.ReceiveStream) -> None:
        async for chunk in stream:
            setattr(self, name, getattr(self, name) + chunk.decode())
            self._news.unpark_all()


StartScript = Callable[..., Awaitable[Script]]


@pytest.fixture
async def start_script() -> AsyncIterator[StartScript]:
    """Start scripts; none of them outlives the test."""

    async def kill(process: trio.Process) -> None:
        process.kill()

    async with trio.open_nursery() as nursery:

        async def start(text: str, *, stderr: int = subprocess.PIPE) -> Script:
            run = partial(
                trio.run_process,
                [sys.executable, "-c", text],
                stdout=subprocess.PIPE,
                stderr=stderr,
                check=False,
                deliver_cancel=kill,
            )
            script = Script(await nursery.start(run))
            nursery.start_soon(script.read)
            return script

        yield start
        nursery.cancel_scope.cancel()


async def test_the_history_is_returned(clients: Clients, caplog: pytest.LogCaptureFixture) -> None:
    histories: list[Any] = []

    async def serve() -> None:
        serve = partial(start_server, server_address=ANY_PORT)
        histories.append(await trio.to_thread.run_sync(serve))

    caplog.set_level("INFO")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        while not (  # noqa: ASYNC110 (the log knows no events)
            ports := [r.address for r in caplog.records if hasattr(r, "address")]
        ):
            await trio.sleep(0.01)
        for _ in range(2):
            clients.start(ports[0])
    [history] = histories
    assert history.losses_distributed == [(1, 1)]


async def test_a_loop_of_trio_is_not_blocked() -> None:
    with pytest.raises(RuntimeError, match="await serve_rounds"):
        start_server(server_address=ANY_PORT)


def test_a_notebook_is_not_blocked() -> None:
    async def notebook() -> None:
        start_server(server_address=ANY_PORT)

    # A loop that is asyncio's own, as a notebook's: trio-asyncio sees to it that new ones are not.
    loop = asyncio.SelectorEventLoop()
    with closing(loop), pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
        loop.run_until_complete(notebook())


async def test_the_example_for_scripts_runs_and_tells_what_it_does(
    clients: Clients, start_script: StartScript
) -> None:
    script = await start_script(SCRIPT)
    address = await script.address()
    for _ in range(2):
        clients.start(address)
    assert await script.end() == 0
    assert script.out.startswith("[(1, 1.0), (2, 2.0), (3, 3.0)]\nHistory:")
    for line in (
        f"Listening on {address}, TLS is off; 3 rounds with FedAvg",
        "Round 3: fit: 2 results, 0 failures",
        "Finished 3 rounds in",
    ):
        assert line in script.err


async def test_a_script_with_logging_of_its_own_gets_nothing_else(
    clients: Clients, start_script: StartScript
) -> None:
    configured = 'import logging; logging.basicConfig(level="INFO", format="MINE %(message)s")\n'
    script = await start_script(configured + SCRIPT)
    address = await script.address()
    for _ in range(2):
        clients.start(address)
    assert await script.end() == 0
    assert all(line.startswith("MINE ") for line in script.err.splitlines())
    assert "MINE Round 3: fit: 2 results" in script.err


async def test_a_terminal_shows_the_round(clients: Clients, start_script: StartScript) -> None:
    terminal, other_end = pty.openpty()
    script = await start_script(SCRIPT, stderr=other_end)
    os.close(other_end)
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody is there any more
        while chunk := await trio.to_thread.run_sync(
            os.read, terminal, 65536, abandon_on_cancel=True
        ):
            before, shown = shown, shown + chunk
            found = re.search(rb"Listening on ([\d.]+:\d+),", shown)
            if found and not re.search(rb"Listening on ([\d.]+:\d+),", before):
                for _ in range(2):
                    clients.start(found[1].decode())
    os.close(terminal)
    assert await script.end() == 0
    assert b"round 3/3" in shown
    assert b"2/2" in shown
    assert b"Finished 3 rounds" in shown


ENDED = """
import superlink_trio
try:
    superlink_trio.start_server(
        server_address="127.0.0.1:0",
        strategy=superlink_trio.FedAvg(evaluate_fn=lambda at, arrays, config: (0.5, {})),
    )
except superlink_trio.Interrupted as interrupted:
    print(interrupted.history.losses_centralized)
"""
NOT_CAUGHT = """
import superlink_trio
try:
    superlink_trio.start_server(server_address="127.0.0.1:0")
finally:
    print("put in order")
"""
SIGNALS = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"]
)


@SIGNALS
async def test_a_signal_in_the_middle_of_a_round(
    number: signal.Signals, clients: Clients, start_script: StartScript
) -> None:
    script = await start_script(ENDED)
    address = await script.address()
    clients.start(address)
    clients.start(address, stall=True)
    await clients.stalled.wait()
    script.process.send_signal(number)
    assert await script.end() == 0
    assert script.out == "[(0, 0.5)]\n"
    assert f"Ended by {number.name}: clients are told to disconnect" in script.err
    assert await clients.ended(2) == {grpc.StatusCode.OK}


@SIGNALS
async def test_a_signal_while_waiting_for_clients(
    number: signal.Signals, start_script: StartScript
) -> None:
    script = await start_script(ENDED)
    await script.logs("Waiting for clients")
    script.process.send_signal(number)
    assert await script.end() == 0
    assert script.out == "[]\n"


def test_ctrl_c_does_not_end_an_interactive_session() -> None:
    assert not issubclass(Interrupted, SystemExit)


async def test_sigterm_that_nobody_catches_ends_the_script_in_order(
    start_script: StartScript,
) -> None:
    script = await start_script(NOT_CAUGHT)
    await script.logs("Waiting for clients")
    script.process.send_signal(signal.SIGTERM)
    assert await script.end() == 143
    assert script.out == "put in order\n"
    assert "Traceback" not in script.err


# Sends itself the signal again as soon as it has taken note of the first.
TWICE = """
import logging, os
class Again(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("Ended by"):
            os.kill(os.getpid(), NUMBER)
logging.basicConfig(level="INFO")
logging.getLogger().addHandler(Again())
"""


@SIGNALS
async def test_a_second_signal_while_clients_are_told_changes_nothing(
    number: signal.Signals, start_script: StartScript
) -> None:
    script = await start_script(TWICE.replace("NUMBER", str(int(number))) + ENDED)
    await script.logs("Waiting for clients")
    script.process.send_signal(number)
    assert await script.end() == 0
    assert script.out == "[]\n"


@SIGNALS
async def test_a_signal_that_the_script_handles_is_the_scripts(
    number: signal.Signals, clients: Clients, start_script: StartScript
) -> None:
    handled = f"import signal; signal.signal({number}, lambda *_: print('mine', flush=True))\n"
    script = await start_script(handled + SCRIPT)
    address = await script.address()
    script.process.send_signal(number)
    for _ in range(2):
        clients.start(address)
    assert await script.end() == 0
    assert script.out.startswith("mine\n[(1, 1.0), (2, 2.0), (3, 3.0)]")
