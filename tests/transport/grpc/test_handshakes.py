"""Connections over TLS that never come to a call."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from certificates import Authority
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.config.address import Address
from superlink_trio.credentials.certificates import Certificates
from superlink_trio.rpc import Caller
from superlink_trio.transport.grpc import server_credentials
from superlink_trio.transport.grpc.handshakes import Handshakes

HERE = Address("127.0.0.1", 9092)


@pytest.fixture
async def handshakes(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> Handshakes:
    caplog.set_level(logging.INFO)
    handshakes = Handshakes("mend it", clock=autojump_clock.current_time)
    nursery.start_soon(handshakes.report, HERE)
    return handshakes


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.message for each in caplog.records if "made no call" in each.message]


async def test_who_never_calls_is_told(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(2):
        handshakes.began()
    await trio.sleep(9)
    assert lines(caplog) == []
    await trio.sleep(12)
    assert lines(caplog) == ["2 connections to 127.0.0.1:9092 made no call: mend it"]


async def test_who_calls_is_not(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for number in range(100):
        handshakes.began()
        handshakes.called(f"ipv4:127.0.0.1:{number}")
    handshakes.began()
    await trio.sleep(5)
    handshakes.called("ipv4:127.0.0.1:4711")
    await trio.sleep(100)
    assert lines(caplog) == []


async def test_one_that_calls_on_and_on_hides_no_other(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    handshakes.began()
    for _ in range(100):
        handshakes.called("ipv4:127.0.0.1:4711")
        await trio.sleep(20)
    handshakes.began()
    handshakes.called("ipv4:127.0.0.1:4711")
    await trio.sleep(21)
    assert lines(caplog) == ["1 connection to 127.0.0.1:9092 made no call: mend it"]


async def test_a_port_that_a_client_had_long_ago_is_a_new_connections(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(3):
        handshakes.began()
        handshakes.called("ipv4:127.0.0.1:4711")
        await trio.sleep(1201)
    assert lines(caplog) == []


async def test_lines_are_few(
    handshakes: Handshakes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(120):
        handshakes.began()
        await trio.sleep(10)
    told = lines(caplog)
    assert 2 <= len(told) <= 3
    assert int(told[1].split()[0]) > 50


async def test_who_cannot_get_in_is_among_them(
    serving: Callable[..., AbstractAsyncContextManager[Any]],
    mock_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.INFO)
    authority = Authority(tmp_path)
    authority.issue()
    handshakes = Handshakes("mend it", clock=mock_clock.current_time)
    credentials = server_credentials(Certificates(authority.sources), began=handshakes.began)
    trusting = grpc.ssl_channel_credentials(authority.pem)
    trusting_another = grpc.ssl_channel_credentials(Authority(tmp_path).pem)
    async with serving(
        unary={"Echo": echo}, credentials=credentials, handshakes=handshakes
    ) as server:
        host, port = server.address.host, server.address.port
        socket.create_connection((host, port)).close()
        for channel, answer in (
            (grpc.insecure_channel(f"{host}:{port}"), grpc.StatusCode.UNAVAILABLE),
            (grpc.secure_channel(f"{host}:{port}", trusting_another), grpc.StatusCode.UNAVAILABLE),
            (grpc.secure_channel(f"{host}:{port}", trusting), grpc.StatusCode.OK),
        ):
            with channel:
                assert await trio.to_thread.run_sync(call, channel) is answer
        for _ in range(2):
            await wait_all_tasks_blocked()
            mock_clock.jump(11)
        await wait_all_tasks_blocked()
    assert lines(caplog) == [f"3 connections to {host}:{port} made no call: mend it"]


async def echo(request: bytes, _: Caller) -> bytes:
    return request


def call(channel: grpc.Channel) -> grpc.StatusCode:
    try:
        channel.unary_unary("/test.Service/Echo", None, None)(b"", timeout=5)
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK
