"""Whole runs over gRPC: start_server, serve_rounds, and how they end."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import grpc
import numpy as np
import pytest
import trio
from certificates import Authority
from threaded_clients import Clients, open_clients

from superlink_trio import (
    FedAvg,
    Federation,
    History,
    Server,
    ServerConfig,
    SimpleClientManager,
    serve_rounds,
)
from superlink_trio.config.address import Address
from superlink_trio.federation import ndarrays_to_parameters
from superlink_trio.transport.listening import AddressError

ANY_PORT = "127.0.0.1:0"
START = ndarrays_to_parameters([np.zeros(3, np.float32)])
PAGE = (Path(__file__).parents[2] / "docs" / "federation.md").read_text(encoding="utf-8")
APPLICATION = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[-1]


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    async with open_clients() as clients:
        yield clients


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
