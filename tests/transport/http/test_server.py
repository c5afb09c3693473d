"""Where a server listens, and when it says that it does."""

from __future__ import annotations

import errno
import logging
import resource
import socket
import subprocess
import sys
from typing import Any

import pytest
import trio

from superlink_trio.config.address import Address
from superlink_trio.rpc import Api, Holds
from superlink_trio.transport.http import HttpOptions, fleet_site, serve_http
from superlink_trio.transport.listening import AddressError


async def serve_directly(address: Address) -> None:
    calls = ("CreateNode", "DeleteNode", "Ping", "PushTaskRes", "GetRun", "GetFab")
    api = Api(
        service="test.Fleet",
        unary=dict.fromkeys(calls, None),  # type: ignore[arg-type]  # never called
        leased={"PullTaskIns": None},  # type: ignore[dict-item]
        holds=Holds(),
    )
    options, stopping = HttpOptions(), trio.Event()
    await serve_http(
        fleet_site(api, options, stopping),
        address,
        options=options,
        stopping=stopping,
        task_status=trio.TASK_STATUS_IGNORED,
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "0.0.0.0", "::"])
async def test_port_0_is_reported_as_the_port_that_was_bound(serving: Any, host: str) -> None:
    async with serving(address=Address(host, 0)) as server:
        assert server.address.host == host
        assert server.address.port > 0
        found = socket.getaddrinfo(host, server.address.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, where in found:
            with socket.socket(family, kind, protocol) as connection:
                connection.connect(where)
        assert (await server.post("ping")).status == 200


async def test_sockets_that_listen_already_are_served_by_one_server_after_the_other(
    serving: Any,
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        bound = Address("127.0.0.1", one.getsockname()[1])
        for _ in range(2):
            async with serving(sockets=[one, two]) as server:
                assert server.address == bound
                assert (await server.post("ping")).status == 200
                server.address = Address("127.0.0.1", two.getsockname()[1])
                assert (await server.post("ping")).status == 200


@pytest.mark.parametrize("taken", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("wanted", ["127.0.0.1", "0.0.0.0", "localhost"])
async def test_an_address_that_is_taken_is_named(taken: str, wanted: str) -> None:
    with socket.socket() as blocker:
        blocker.bind((taken, 0))
        blocker.listen()
        address = Address(wanted, blocker.getsockname()[1])
        with pytest.raises(AddressError) as caught:
            await serve_directly(address)
    assert caught.value.errno == errno.EADDRINUSE
    assert f"cannot listen on {address}: Address already in use" in str(caught.value)


async def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(AddressError, match=r"192\.0\.2\.1:80: .*no network interface"):
        await serve_directly(Address("192.0.2.1", 80))


async def test_an_unknown_host_is_named() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on host\.invalid:9093: .*"):
        await serve_directly(Address("host.invalid", 9093))


@pytest.mark.parametrize(
    "address", [Address("127.0.0.1", 99999), Address("127.0.0.1", -1), Address("unix:/x", 1)]
)
async def test_a_malformed_address_is_no_other_address(address: Address) -> None:
    with pytest.raises(ValueError):
        await serve_directly(address)


async def test_more_connections_than_open_files_are_not_promised(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    caplog.set_level(logging.INFO)
    async with serving(options=HttpOptions(max_connections=files)) as server:
        assert (await server.post("ping")).status == 200
    assert f"the limit of {files} open files" in caplog.text


def test_who_serves_grpc_does_not_load_it() -> None:
    program = """if True:
        import sys
        for name in ("hypercorn", "starlette", "h11", "h2"):
            sys.modules[name] = None
        import superlink_trio, superlink_trio.cli, superlink_trio.superlink
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
