"""Clients that cannot get in over HTTP, as the log has them."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
import trio
from transport.http.clients import FLEET, Http1, connect_tls, head

from superlink_trio.config import Address
from superlink_trio.transport.http import strangers

HELLO = bytes.fromhex("160301") + bytes(100)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", strangers.__name__)
    return caplog


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (HELLO, "it speaks TLS, and this port does not: let it connect to http://"),
        (PREFACE, "it speaks HTTP/2, as gRPC does, and this port HTTP/1.1"),
    ],
)
async def test_who_speaks_something_else_is_told_of_once(
    serving: Any, told: pytest.LogCaptureFixture, data: bytes, words: str
) -> None:
    async with serving() as server:
        for _ in range(3):
            client = await server.http1()
            await client.send(data)
            await client.ended()
    [line] = told.messages
    assert line.startswith(f"A client on 127.0.0.1 cannot get in: {words}")


@pytest.mark.parametrize("data", [head("POST", FLEET + "ping"), PREFACE])
async def test_a_plain_client_of_a_tls_port(
    serving: Any, server_context: ssl.SSLContext, told: pytest.LogCaptureFixture, data: bytes
) -> None:
    async with serving(tls=lambda: server_context) as server:
        client = await server.http1()
        await client.send(data)
        await client.ended()
    [line] = told.messages
    assert line.endswith("it speaks no TLS, and this port does: let it connect to https://")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_that_does_not_trust_the_certificate(
    serving: Any,
    server_context: ssl.SSLContext,
    told: pytest.LogCaptureFixture,
    version: ssl.TLSVersion,
) -> None:
    distrustful = ssl.create_default_context()
    distrustful.maximum_version = version

    def connect(address: Address) -> None:
        with (
            socket.create_connection((address.host, address.port), timeout=10) as plain,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            distrustful.wrap_socket(plain, server_hostname="localhost")

    async with serving(tls=lambda: server_context) as server:
        await trio.to_thread.run_sync(connect, server.address)
        with trio.move_on_after(5):
            while not told.messages:
                await trio.lowlevel.checkpoint()
    [line] = told.messages
    assert "it does not trust the certificate of this port: give it that of" in line


async def test_a_grpc_client_of_a_tls_port(
    serving: Any,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    told: pytest.LogCaptureFixture,
) -> None:
    async with serving(tls=lambda: server_context) as server:
        stream = await connect_tls(server.address, client_context, "h2")
        await stream.aclose()
        with trio.move_on_after(5):
            while not told.messages:
                await trio.lowlevel.checkpoint()
    [line] = told.messages
    assert "hung up right after the TLS handshake, as clients of gRPC do" in line


async def test_nothing_is_told_of_who_gets_in(
    serving: Any,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    told: pytest.LogCaptureFixture,
) -> None:
    async with serving() as server:
        await server.post("ping")
        await (await server.connect()).aclose()
    async with serving(tls=lambda: server_context) as server:
        stream = await connect_tls(server.address, client_context)
        assert (await Http1(stream).post(FLEET + "ping")).status == 200
        await stream.aclose()
    assert told.messages == []
