from __future__ import annotations

import ssl
from typing import Any

import pytest
import trio
import trustme
from transport.http.clients import FLEET, Http1, connect_tls, head

PING, PULL = FLEET + "ping", FLEET + "pull-task-ins"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_calls_over_tls(
    serving: Any,
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    version: ssl.TLSVersion,
) -> None:
    client_context.minimum_version = client_context.maximum_version = version
    async with serving(tls=lambda: server_context) as server:
        client = Http1(await connect_tls(server.address, client_context, "http/1.1"))
        for number in (b"1", b"2"):
            answer = await client.post(PING, number)
            assert answer.body == b"Ping:" + number
        await client.stream.aclose()


async def test_who_would_rather_speak_http2_speaks_http1(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with serving(tls=lambda: server_context) as server:
        stream = await connect_tls(server.address, client_context, "h2", "http/1.1")
        assert stream.selected_alpn_protocol() == "http/1.1"
        assert (await Http1(stream).post(PING)).status == 200
        await stream.aclose()


async def test_alpn_is_not_needed(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with serving(tls=lambda: server_context) as server:
        stream = await connect_tls(server.address, client_context)
        assert (await Http1(stream).post(PING)).status == 200
        await stream.aclose()


async def test_large_answers_over_tls(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext, lease: Any
) -> None:
    lease.answer = bytes(range(256)) * 20_000
    lease.proceed.set()
    async with serving(tls=lambda: server_context, pull=lease.pull) as server:
        stream = await connect_tls(server.address, client_context, "http/1.1")
        assert (await Http1(stream).post(PULL)).body == lease.answer
        await stream.aclose()
    assert lease.outcome == "confirmed"


async def test_a_lost_client_over_tls_ends_its_hold(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext, lease: Any
) -> None:
    async with serving(tls=lambda: server_context, pull=lease.pull) as server:
        stream = await connect_tls(server.address, client_context, "http/1.1")
        await stream.send_all(head("POST", PULL))
        await lease.taken.wait()
        await trio.aclose_forcefully(stream)
        with trio.fail_after(5):
            await lease.settled.wait()
        assert lease.outcome == "put back"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_before_1_2_is_refused(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    server_context.minimum_version = ssl.TLSVersion.TLSv1_1
    client_context.minimum_version = ssl.TLSVersion.TLSv1_1
    client_context.maximum_version = ssl.TLSVersion.TLSv1_1
    client_context.set_ciphers("ALL:@SECLEVEL=0")
    server_context.set_ciphers("ALL:@SECLEVEL=0")
    async with serving(tls=lambda: server_context) as server:
        with pytest.raises(trio.BrokenResourceError):
            await connect_tls(server.address, client_context, "http/1.1")


async def test_plain_http_on_a_tls_port_hurts_nobody(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    async with serving(tls=lambda: server_context) as server:
        client = await server.http1()
        await client.send(head("POST", PING))
        await client.ended()
        stream = await connect_tls(server.address, client_context, "http/1.1")
        assert (await Http1(stream).post(PING)).status == 200
        await stream.aclose()


async def test_a_new_certificate_serves_new_connections_and_keeps_the_old_ones(
    serving: Any, server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    contexts = [server_context]
    async with serving(tls=lambda: contexts[-1]) as server:
        old = Http1(await connect_tls(server.address, client_context, "http/1.1"))
        await old.post(PING)
        other = trustme.CA()
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        other.issue_cert("localhost").configure_cert(contexts[-1])
        assert (await old.post(PING)).status == 200
        with pytest.raises(trio.BrokenResourceError):
            await connect_tls(server.address, client_context, "http/1.1")
        trusting = ssl.create_default_context()
        other.configure_trust(trusting)
        new = Http1(await connect_tls(server.address, trusting, "http/1.1"))
        assert (await new.post(PING)).status == 200
        await old.stream.aclose()
        await new.stream.aclose()
