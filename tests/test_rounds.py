"""Whole runs over gRPC: start_server, serve_rounds, and how they end."""

from __future__ import annotations

import asyncio
import os
import pty
import queue
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import grpc
import numpy as np
import pytest
import trio
from certificates import Authority
from joiners import answer_adding

from superlink_trio import (
    FedAvg,
    Federation,
    History,
    Server,
    ServerConfig,
    SimpleClientManager,
    serve_rounds,
    start_server,
)
from superlink_trio.address import Address
from superlink_trio.federation import ndarrays_to_parameters
from superlink_trio.transport.listening import AddressError
from superlink_trio.wire import rounds_pb2 as pb

ANY_PORT = "127.0.0.1:0"
START = ndarrays_to_parameters([np.zeros(3, np.float32)])
PAGE = (Path(__file__).parents[1] / "docs" / "federation.md").read_text(encoding="utf-8")
SCRIPT, APPLICATION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@attrs.define
class Clients:
    """Clients in threads, on gRPC's synchronous API as Flower's are."""

    _nursery: trio.Nursery
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)
    _threads: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(200))
    stalled: trio.Event = attrs.field(factory=trio.Event)
    _endings: Any = attrs.field(factory=lambda: trio.open_memory_channel(200))

    def start(
        self, address: Any, step: float = 1, *, stall: bool = False, ca: bytes | None = None
    ) -> None:
        """Join; training adds `step` to every weight, or with `stall` does not end."""
        self._nursery.start_soon(self._run, str(address), step, stall, ca)

    async def ended(self, number: int) -> set[grpc.StatusCode]:
        """Wait for that many to end; gives how they did.

        OK: they were told to, or the server ended the stream so. Else the server's status.
        """
        return {await self._endings[1].receive() for _ in range(number)}

    async def _run(self, *arguments: Any) -> None:
        code = await trio.to_thread.run_sync(self._join, *arguments, limiter=self._threads)
        await self._endings[0].send(code)

    def _join(self, address: str, step: float, stall: bool, ca: bytes | None) -> grpc.StatusCode:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if ca is None:
            channel = grpc.insecure_channel(address, options)
        else:
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(ca), options)
        answers: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with channel:
            join: Any = channel.stream_stream("/flwr.proto.FlowerService/Join", None, None)
            try:
                for raw in join(iter(answers.get, None), wait_for_ready=True):
                    message = pb.ServerMessage.FromString(raw)
                    if message.HasField("reconnect_ins"):
                        break
                    if stall and message.HasField("fit_ins"):
                        self._token.run_sync_soon(self.stalled.set)
                    else:
                        answers.put(answer_adding(message, step).SerializeToString())
            except grpc.RpcError as error:
                code: grpc.StatusCode = error.code()
                return code
            finally:
                answers.put(None)
        return grpc.StatusCode.OK


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 60
        yield Clients(nursery)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@attrs.define
class Run:
    """serve_rounds in a task of its own."""

    federation: Federation
    scope: trio.CancelScope
    ended: trio.Event
    result: Any = None

    @property
    def address(self) -> Address | None:
        return self.federation.address


async def begin(nursery: trio.Nursery, **arguments: Any) -> Run:
    scope, ended = trio.CancelScope(), trio.Event()
    runs: list[Run] = []

    async def serve(task_status: trio.TaskStatus[Federation]) -> None:
        try:
            with scope:
                result = await serve_rounds(
                    **{"server_address": ANY_PORT, **arguments}, task_status=task_status
                )
                runs[0].result = result
        finally:
            ended.set()

    runs.append(Run(await nursery.start(serve), scope, ended))
    return runs[0]


async def test_rounds_over_grpc(clients: Clients) -> None:
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, config=ServerConfig(num_rounds=3))
        clients.start(run.address, 1)
        clients.start(run.address, 3)
        await run.ended.wait()
    assert isinstance(run.result, History)
    assert run.result.losses_distributed == [(1, 2), (2, 4), (3, 6)]
    assert run.federation.history is run.result


async def test_clients_end_well_when_the_rounds_are_over(clients: Clients) -> None:
    async with trio.open_nursery() as nursery:
        run = await begin(nursery)
        for _ in range(2):
            clients.start(run.address)
        await run.ended.wait()
    assert await clients.ended(2) == {grpc.StatusCode.OK}


async def test_tls(clients: Clients, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    ca, certificate, key = (path.read_bytes() for path in authority.files)
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, certificates=(ca, certificate, key))
        for _ in range(2):
            clients.start(run.address, ca=ca)
        await run.ended.wait()
    assert run.result.losses_distributed == [(1, 1)]


@pytest.mark.alone
@pytest.mark.parametrize("by", ["stop", "cancel"])
async def test_stopping_a_hundred_idle_clients_takes_less_than_a_second(
    clients: Clients, by: str
) -> None:
    manager = SimpleClientManager()
    async with trio.open_nursery() as nursery:
        run = await begin(
            nursery,
            client_manager=manager,
            strategy=FedAvg(min_available_clients=101, initial_parameters=START),
        )
        for _ in range(100):
            clients.start(run.address)
        await trio.to_thread.run_sync(manager.wait_for, 100)
        before = trio.current_time()
        run.federation.stop() if by == "stop" else run.scope.cancel()
        await run.ended.wait()
        assert trio.current_time() - before < 1
    assert isinstance(run.federation.history, History)
    assert (run.result is not None) == (by == "stop")
    assert await clients.ended(100) == {grpc.StatusCode.OK}


@pytest.mark.alone
async def test_stopping_in_the_middle_of_a_round_gives_the_history_so_far(
    clients: Clients,
) -> None:
    async with trio.open_nursery() as nursery:
        run = await begin(
            nursery,
            strategy=FedAvg(
                initial_parameters=START, evaluate_fn=lambda at, arrays, config: (0.5, {})
            ),
        )
        clients.start(run.address)
        clients.start(run.address, stall=True)
        await clients.stalled.wait()
        before = trio.current_time()
        run.federation.stop()
        await run.ended.wait()
        assert trio.current_time() - before < 1
    assert run.result.losses_centralized == [(0, 0.5)]
    assert await clients.ended(2) == {grpc.StatusCode.OK}


async def test_a_timeout_ends_that_clients_stream(clients: Clients) -> None:
    async with trio.open_nursery() as nursery:
        run = await begin(
            nursery,
            config=ServerConfig(round_timeout=0.2),
            strategy=FedAvg(initial_parameters=START, fraction_evaluate=0, min_available_clients=2),
        )
        clients.start(run.address)
        clients.start(run.address, stall=True)
        await run.ended.wait()
    assert await clients.ended(2) == {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_what_a_strategy_raises_comes_out_as_it_is(clients: Clients) -> None:
    class Broken(FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            raise ZeroDivisionError("broken")

    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, strategy=Broken())
            clients.start(run.address)
            clients.start(run.address)
            with trio.CancelScope(shield=True):
                await run.ended.wait()
    [error] = caught.value.exceptions  # this test's nursery
    assert isinstance(error, ZeroDivisionError)
    assert any("aggregate_fit in round 1" in note for note in error.__notes__)
    assert await clients.ended(2) == {grpc.StatusCode.OK}


async def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AddressError, match="another program listens there"):
            await serve_rounds(server_address=address)


@pytest.mark.parametrize("address", ["localhost", "localhost:port", "::1:8080"])
async def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match=r"port|brackets"):
        await serve_rounds(server_address=address)


async def test_certificates_that_are_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    ca, certificate, key = (path.read_bytes() for path in authority.files)
    with pytest.raises(ExceptionGroup) as caught:
        await serve_rounds(server_address=ANY_PORT, certificates=(b"junk", key, certificate))
    texts = [str(fault) for fault in caught.value.exceptions]
    assert len(texts) == 3
    assert any("swapped" in text for text in texts)
    other = Authority(tmp_path)
    other.issue()
    with pytest.raises(ExceptionGroup, match="certificates that cannot be used"):
        await serve_rounds(
            server_address=ANY_PORT,
            certificates=(ca, certificate, (tmp_path / "server.key").read_bytes()),
        )


async def test_a_server_brings_its_own_strategy(
    clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(strategy=FedAvg(initial_parameters=START, fraction_evaluate=0))
    async with trio.open_nursery() as nursery:
        run = await begin(nursery, server=server, strategy=FedAvg())
        for _ in range(2):
            clients.start(run.address)
        await run.ended.wait()
    assert run.federation.server is server
    assert "strategy and client_manager are its own" in caplog.text


async def test_a_manager_can_be_used_again(clients: Clients) -> None:
    manager = SimpleClientManager()
    for _ in range(2):
        async with trio.open_nursery() as nursery:
            run = await begin(nursery, client_manager=manager)
            for _ in range(2):
                clients.start(run.address)
            await run.ended.wait()
        assert run.result.losses_distributed == [(1, 1)]


async def test_start_server_returns_the_history(clients: Clients, free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    for _ in range(2):
        clients.start(address)
    history = await trio.to_thread.run_sync(partial(start_server, server_address=address))
    assert history.losses_distributed == [(1, 1)]


async def test_start_server_does_not_block_a_loop() -> None:
    with pytest.raises(RuntimeError, match="await serve_rounds"):
        start_server(server_address=ANY_PORT)


def test_start_server_does_not_block_a_notebook() -> None:
    async def notebook() -> None:
        start_server(server_address=ANY_PORT)

    # A loop that is asyncio's own, as a notebook's: trio-asyncio sees to it that new ones are not.
    loop = asyncio.SelectorEventLoop()
    with closing(loop), pytest.raises(RuntimeError, match=r"asyncio\.to_thread"):
        loop.run_until_complete(notebook())


async def test_the_example_for_applications_runs(clients: Clients, capsys: Any) -> None:
    names: dict[str, Any] = {}
    exec(compile(APPLICATION.replace("trio.run(main)", ""), "docs/federation.md", "exec"), names)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(names["main"])
        output = ""
        while "clients join at" not in output:
            await trio.lowlevel.checkpoint()
            output += capsys.readouterr().out
        for _ in range(2):
            clients.start(output.split()[-1])
    assert "round 1: 1" in capsys.readouterr().out


async def script(text: str, port: int) -> Any:
    """Start a script; `outputs` reads what it writes."""
    return await trio.lowlevel.open_process(
        [sys.executable, "-c", text.replace("8080", str(port))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def outputs(process: trio.Process) -> tuple[str, str]:
    collected = {"out": b"", "err": b""}

    async def read(name: str, stream: Any) -> None:
        async for chunk in stream:
            collected[name] += chunk

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, "out", process.stdout)
        nursery.start_soon(read, "err", process.stderr)
    await process.wait()
    return collected["out"].decode(), collected["err"].decode()


async def test_the_example_for_scripts_runs_and_tells_what_it_does(
    clients: Clients, free_port: int
) -> None:
    process = await script(SCRIPT, free_port)
    for _ in range(2):
        clients.start(f"127.0.0.1:{free_port}")
    out, err = await outputs(process)
    assert process.returncode == 0
    assert out.startswith("[(1, 1.0), (2, 2.0), (3, 3.0)]\nHistory:")
    for line in (
        f"Listening on 127.0.0.1:{free_port}, TLS is off; 3 rounds with FedAvg",
        "Round 3: fit: 2 results, 0 failures",
        "Finished 3 rounds in",
    ):
        assert line in err


async def test_a_script_with_logging_of_its_own_gets_nothing_else(
    clients: Clients, free_port: int
) -> None:
    configured = 'import logging; logging.basicConfig(level="INFO", format="MINE %(message)s")\n'
    process = await script(configured + SCRIPT, free_port)
    for _ in range(2):
        clients.start(f"127.0.0.1:{free_port}")
    _, err = await outputs(process)
    assert process.returncode == 0
    assert all(line.startswith("MINE ") for line in err.splitlines())
    assert "MINE Round 3: fit: 2 results" in err


INTERRUPTED = """
import superlink_trio
try:
    superlink_trio.start_server(
        server_address="127.0.0.1:8080",
        strategy=superlink_trio.FedAvg(evaluate_fn=lambda at, arrays, config: (0.5, {})),
    )
except superlink_trio.Interrupted as interrupted:
    print(interrupted.history.losses_centralized)
"""


async def test_ctrl_c_in_the_middle_of_a_round(clients: Clients, free_port: int) -> None:
    process = await script(INTERRUPTED, free_port)
    clients.start(f"127.0.0.1:{free_port}")
    clients.start(f"127.0.0.1:{free_port}", stall=True)
    await clients.stalled.wait()
    process.send_signal(signal.SIGINT)
    with trio.fail_after(3):
        out, err = await outputs(process)
    assert out == "[(0, 0.5)]\n"
    assert process.returncode == 0
    assert "Interrupted: clients are told to disconnect" in err
    assert await clients.ended(2) == {grpc.StatusCode.OK}


async def test_ctrl_c_while_waiting_for_clients(free_port: int) -> None:
    process = await script(INTERRUPTED, free_port)
    err = b""
    while b"Waiting for clients" not in err:
        err += await process.stderr.receive_some()
    process.send_signal(signal.SIGINT)
    with trio.fail_after(3):
        out, _ = await outputs(process)
    assert out == "[]\n"


def test_importing_the_package_is_cheap() -> None:
    program = (
        "import sys, superlink_trio;"
        "heavy = {'numpy', 'grpc', 'trio_asyncio', 'google.protobuf', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_public_name_is_there() -> None:
    import superlink_trio

    for name in superlink_trio.__all__:
        assert getattr(superlink_trio, name).__name__ == name


async def test_a_terminal_shows_the_round(clients: Clients, free_port: int) -> None:
    terminal, other_end = pty.openpty()
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", SCRIPT.replace("8080", str(free_port))],
        stdout=subprocess.DEVNULL,
        stderr=other_end,
    )
    os.close(other_end)
    for _ in range(2):
        clients.start(f"127.0.0.1:{free_port}")
    shown = b""
    with suppress(OSError):  # how a terminal says that nobody is there any more
        while chunk := await trio.to_thread.run_sync(os.read, terminal, 65536):
            shown += chunk
    os.close(terminal)
    assert await process.wait() == 0
    assert b"round 3/3" in shown
    assert b"2/2" in shown
    assert b"Finished 3 rounds" in shown
