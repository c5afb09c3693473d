from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
import trustme
from transport.http.clients import FLEET, Answer, Http1, connect
from trio.testing import MockClock

from superlink_trio.config.address import Address
from superlink_trio.rpc import Api, Caller, CallObserver, Holds, Leased, Refused, Unary
from superlink_trio.transport.http import HttpOptions, fleet_site, serve_http

UNARY = ("CreateNode", "DeleteNode", "Ping", "PushTaskRes", "GetRun", "GetFab")


@attrs.define
class Server:
    """A server under test, and clients to call it with."""

    address: Address
    holds: Holds
    stopping: trio.Event
    ended: trio.Event
    scope: trio.CancelScope
    clients: AsyncExitStack
    turned_away: list[str]

    async def connect(self) -> trio.SocketStream:
        return await self.clients.enter_async_context(await connect(self.address))

    async def http1(self) -> Http1:
        return Http1(await self.connect())

    async def post(self, call: str, body: bytes = b"") -> Answer:
        """Call over a connection of its own."""
        async with await connect(self.address) as stream:
            return await Http1(stream).post(FLEET + call, body)

    async def stop(self) -> float:
        """Stop the server; give the seconds that took."""
        before = trio.current_time()
        self.stopping.set()
        await self.ended.wait()
        return trio.current_time() - before


Serving = Callable[..., AbstractAsyncContextManager[Server]]


def named(name: str) -> Unary:
    """Answer with the call's name and its request."""

    async def answer(request: bytes, caller: Caller) -> bytes:
        return name.encode() + b":" + request

    return answer


@asynccontextmanager
async def _pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
    yield b"PullTaskIns:" + request


@pytest.fixture
def serving() -> Serving:
    """Open a server; on leaving the block it is stopped and awaited.

    Each call answers its name and its request, but for those that are given.
    """

    @asynccontextmanager
    async def serving(
        *,
        unary: Mapping[str, Unary] | None = None,
        pull: Leased = _pull,
        address: Address = Address("127.0.0.1", 0),  # noqa: B008 (frozen)
        sockets: Sequence[socket.socket] = (),
        tls: Callable[[], ssl.SSLContext] | None = None,
        options: HttpOptions = HttpOptions(grace=5),  # noqa: B008 (frozen)
        observers: Sequence[CallObserver] = (),
    ) -> AsyncIterator[Server]:
        holds = Holds()
        refused: list[str] = []

        def turned_away(method: str, caller: Caller, refusal: Refused) -> None:
            refused.append(f"{method}: {refusal.reason}")

        api = Api(
            service="test.Fleet",
            unary={**{name: named(name) for name in UNARY}, **(unary or {})},
            leased={"PullTaskIns": pull},
            holds=holds,
            turned_away=turned_away,
        )
        stopping, ended, scope = trio.Event(), trio.Event(), trio.CancelScope()

        async def serve(task_status: trio.TaskStatus[Address]) -> None:
            try:
                with scope:
                    await serve_http(
                        fleet_site(api, options, stopping, observers=observers),
                        address,
                        sockets=sockets,
                        tls=tls,
                        options=options,
                        stopping=stopping,
                        task_status=task_status,
                    )
            finally:
                ended.set()

        async with trio.open_nursery() as nursery, AsyncExitStack() as clients:
            bound = await nursery.start(serve)
            with trio.fail_after(5000):
                try:
                    yield Server(bound, holds, stopping, ended, scope, clients, refused)
                finally:
                    stopping.set()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + 60):
                        await ended.wait()

    return serving


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    """A clock that jumps over waits, but not while bytes may be crossing the loopback."""
    autojump_clock.autojump_threshold = 0.05
    return autojump_clock


class Lease:
    """A pull that tells what became of its answer."""

    def __init__(self, answer: bytes = b"task") -> None:
        self.answer = answer
        self.taken, self.proceed, self.settled = trio.Event(), trio.Event(), trio.Event()
        self.outcome = ""
        self.pulls = 0

    @asynccontextmanager
    async def pull(self, request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        self.pulls += 1
        self.taken.set()
        try:
            await self.proceed.wait()
            yield self.answer
        except BaseException:
            self.outcome = "put back"
            raise
        else:
            self.outcome = "confirmed"
        finally:
            self.settled.set()


@pytest.fixture
def lease() -> Lease:
    return Lease()


@pytest.fixture
def large_lease() -> Lease:
    """A lease of more bytes than any socket's buffers hold."""
    lease = Lease(b"x" * 64_000_000)
    lease.proceed.set()
    return lease


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
