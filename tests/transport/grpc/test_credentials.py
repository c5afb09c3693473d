from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import grpc
import pytest
import trio
from certificates import Authority
from trio.testing import wait_all_tasks_blocked

from examples import fewer
from superlink_trio.config.address import Address
from superlink_trio.credentials.certificates import Certificates
from superlink_trio.rpc import Caller
from superlink_trio.transport.grpc import server_credentials

METHOD = "/test.Service/Echo"


async def echo(request: bytes, _: Caller) -> bytes:
    return request


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue()
    return authority


@attrs.define
class Client:
    """A client that trusts an authority; its calls wait in worker threads."""

    channel: grpc.Channel

    async def call(self, method: str = METHOD) -> bytes:
        invoke = self.channel.unary_unary(method, None, None)
        answer: bytes = await trio.to_thread.run_sync(lambda: invoke(b"hello", timeout=10))
        return answer


Connect = Callable[..., Client]


@pytest.fixture
def connect() -> Iterator[Connect]:
    channels: list[grpc.Channel] = []

    def connect(server: Any, ca: bytes, *key_and_chain: bytes) -> Client:
        credentials = grpc.ssl_channel_credentials(ca, *key_and_chain)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels.append(grpc.secure_channel(str(server.address), credentials, options))
        return Client(channels[-1])

    yield connect
    for channel in channels:
        channel.close()


def trusting(ca: bytes) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.decode())
    context.set_alpn_protocols(["h2"])
    return context


def presented(server: Any, ca: bytes, version: ssl.TLSVersion | None = None) -> bytes:
    """Shake hands and give the certificate that the server shows."""
    context = trusting(ca)
    if version is not None:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection((server.address.host, server.address.port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as stream,
    ):
        return stream.getpeercert(binary_form=True) or b""


async def test_calls_are_answered_over_tls(
    serving: Any, connect: Connect, authority: Authority, tmp_path_factory: Any
) -> None:
    credentials = server_credentials(Certificates(authority.sources))
    stranger = Authority(tmp_path_factory.mktemp("stranger"))
    async with serving(unary={"Echo": echo}, credentials=credentials) as server:
        assert await connect(server, authority.pem).call() == b"hello"
        with pytest.raises(grpc.RpcError) as refused:
            await connect(server, stranger.pem).call()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError):
            await server.call("Echo")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(serving: Any, authority: Authority) -> None:
    credentials = server_credentials(Certificates(authority.sources))
    async with serving(unary={"Echo": echo}, credentials=credentials) as server:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            with pytest.raises(OSError):
                await trio.to_thread.run_sync(presented, server, authority.pem, version)
        await trio.to_thread.run_sync(presented, server, authority.pem, ssl.TLSVersion.TLSv1_2)


async def test_a_new_certificate_is_for_new_connections(
    serving: Any, connect: Connect, authority: Authority
) -> None:
    release = trio.Event()

    @asynccontextmanager
    async def held(request: bytes, _: Caller) -> AsyncIterator[bytes]:
        await release.wait()
        yield request

    certificates = Certificates(authority.sources)
    async with serving(
        unary={"Echo": echo}, leased={"Held": held}, credentials=server_credentials(certificates)
    ) as server:
        client = connect(server, authority.pem)
        answers: list[bytes] = []

        async def hold() -> None:
            answers.append(await client.call("/test.Service/Held"))

        async with trio.open_nursery() as nursery:
            assert await client.call() == b"hello"
            nursery.start_soon(hold)
            await wait_all_tasks_blocked(0.1)
            old = await trio.to_thread.run_sync(presented, server, authority.pem)
            authority.issue()
            certificates.reload()
            new = await trio.to_thread.run_sync(presented, server, authority.pem)
            again = await trio.to_thread.run_sync(presented, server, authority.pem)
            assert old != new == again
            assert answers == []
            assert await client.call() == b"hello", "the connection was left alone"
            release.set()
        assert answers == [b"hello"]


async def test_clients_have_to_be_signed_for(
    serving: Any, connect: Connect, authority: Authority, tmp_path_factory: Any
) -> None:
    drivers = Authority(tmp_path_factory.mktemp("drivers"))
    drivers.issue()
    sources = attrs.evolve(authority.sources, client_ca=drivers.folder / "ca.pem")
    credentials = server_credentials(Certificates(sources), clients_need_certificates=True)
    async with serving(unary={"Echo": echo}, credentials=credentials) as server:
        assert await connect(server, authority.pem, *drivers.client()).call() == b"hello"
        for key_and_chain in ((), authority.client()):
            with pytest.raises(grpc.RpcError) as refused:
                await connect(server, authority.pem, *key_and_chain).call()
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@attrs.frozen
class Names(trio.abc.HostnameResolver):
    """Knows every host by the same addresses."""

    hosts: Sequence[str]

    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (found, int(port)))
            for found in self.hosts
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def test_every_address_of_a_name_speaks_tls(serving: Any, authority: Authority) -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    trio.socket.set_custom_hostname_resolver(Names(hosts))
    credentials = server_credentials(Certificates(authority.sources))
    async with serving(address=Address("superlink.test", 0), credentials=credentials) as server:
        for host in hosts:
            server.address = Address(host, server.address.port)
            await trio.to_thread.run_sync(presented, server, authority.pem)


async def test_calls_named_in_no_encoding_leave_tls_as_it_was(
    serving: Any, send_call: Any, connect: Connect, authority: Authority
) -> None:
    certificates = Certificates(authority.sources)
    async with serving(
        unary={"Echo": echo}, credentials=server_credentials(certificates)
    ) as server:
        for _ in range(3):
            await trio.to_thread.run_sync(
                send_call, server.address, b"/\xff\xfe/x", trusting(authority.pem)
            )
            with trio.fail_after(10):
                while not await answers(connect(server, authority.pem)):
                    assert not server.ended.is_set()
        old = await trio.to_thread.run_sync(presented, server, authority.pem)
        authority.issue()
        certificates.reload()
        assert await trio.to_thread.run_sync(presented, server, authority.pem) != old


async def answers(client: Client) -> bool:
    try:
        return await client.call() == b"hello"
    except grpc.RpcError:
        return False


def test_a_storm_of_connections_and_changes_is_survived(tmp_path: Path) -> None:
    script, times = Path(__file__).parent / "tls_storm.py", fewer(3000, 300)
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(times), "20"],
        stdout=subprocess.PIPE,
        timeout=120,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},
    )
    assert (done.returncode, done.stdout) == (0, b"%d" % times)
