"""APIs of Flower 1.35 and later over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio
from transport.http.clients import Http1, connect, head
from trio.testing import MockClock

from superlink_trio.config.address import Address
from superlink_trio.rpc import Api, Caller, Duplex, Holds, Refused, Status
from superlink_trio.transport.http import HttpOptions, protobuf_site, serve_http

OPTIONS = HttpOptions(grace=5)


@attrs.define(eq=False)
class Service:
    """An API whose calls do as they are told."""

    holds: Holds = attrs.field(factory=Holds)
    proceed: trio.Event = attrs.field(factory=trio.Event)
    ended: list[str] = attrs.field(factory=list)

    @property
    def api(self) -> Api:
        return Api(
            service="test.Service",
            unary={"DoThis": self.do_this, "Refuse": self.refuse, "Break": self.break_down},
            leased={"PullMessages": self.pull},
            streaming={"StreamLogs": self.stream},
            holds=self.holds,
        )

    async def do_this(self, raw: bytes, caller: Caller) -> bytes:
        return raw + caller.metadata.get("flwr-task-token", "").encode()

    async def refuse(self, raw: bytes, caller: Caller) -> bytes:
        caller.headers["www-authenticate"] = "Thing"
        raise Refused(Status[raw.decode()], "because", 7)

    async def break_down(self, raw: bytes, caller: Caller) -> bytes:
        raise RuntimeError("broken")

    @asynccontextmanager
    async def pull(self, raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        if raw == b"refuse":
            raise Refused(Status.PERMISSION_DENIED, "over")
        try:
            with self.holds.open(10_000):
                await self.proceed.wait()
            yield b"message"
            self.ended.append("arrived")
        except trio.Cancelled:
            self.ended.append("cancelled")
            raise

    async def stream(self, duplex: Duplex, caller: Caller) -> None:
        try:
            raw = await duplex.receive()
            if raw == b"refuse":
                raise Refused(Status.NOT_FOUND, "no such run", 16)
            for word in (b"one", b"two"):
                await duplex.send(word)
            if raw == b"break off":
                raise Refused(Status.PERMISSION_DENIED, "no longer")
            with self.holds.open(10_000):
                await self.proceed.wait()
            await duplex.send(raw)
        finally:
            self.ended.append("streamed")


@attrs.define
class Server:
    """A server under test."""

    service: Service
    address: Address
    stopping: trio.Event
    clients: AsyncExitStack

    async def http1(self) -> Http1:
        return Http1(await self.clients.enter_async_context(await connect(self.address)))

    async def begin(self, call: str, body: bytes = b"") -> Http1:
        """Send a request on a connection of its own; wait for nothing."""
        client = await self.http1()
        await client.send(head("POST", f"/v1/thing/{call}", len(body)) + body)
        return client


@pytest.fixture
async def server(nursery: trio.Nursery, autojump_clock: MockClock) -> AsyncIterator[Server]:
    # Not while bytes may be crossing the loopback.
    autojump_clock.autojump_threshold = 0.05
    service, stopping = Service(), trio.Event()
    site = protobuf_site(
        {"thing": service.api},
        OPTIONS,
        not_offered="not here",
        elsewhere=lambda api: "moved is there" if api == "moved" else None,
    )

    async def serve(*, task_status: trio.TaskStatus[Address]) -> None:
        await serve_http(
            site,
            Address("127.0.0.1", 0),
            options=OPTIONS,
            stopping=stopping,
            task_status=task_status,
        )

    bound = await nursery.start(serve)
    async with AsyncExitStack() as clients:
        yield Server(service, bound, stopping, clients)
        stopping.set()


async def test_a_call_is_found_by_its_path(server: Server, autojump_clock: MockClock) -> None:
    client = await server.http1()
    headers = (("flwr-task-token", "secret"),)
    for _ in range(2):
        answer = await client.post("/v1/thing/do-this", b"request ", headers)
        assert (answer.status, answer.body) == (200, b"request secret")
        assert answer.headers["content-type"] == "application/protobuf"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("UNAUTHENTICATED", 401),
        ("PERMISSION_DENIED", 403),
        ("NOT_FOUND", 404),
        ("FAILED_PRECONDITION", 412),
        ("INVALID_ARGUMENT", 400),
        ("UNAVAILABLE", 503),
        # These would end a node for good if they were said as they are.
        ("RESOURCE_EXHAUSTED", 503),
        ("INTERNAL", 503),
    ],
)
async def test_refusals_are_json(
    server: Server, status: str, code: int, autojump_clock: MockClock
) -> None:
    answer = await (await server.http1()).post("/v1/thing/refuse", status.encode())
    assert answer.status == code
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"code": 7, "detail": "because"}
    assert answer.headers["www-authenticate"] == "Thing"


@pytest.mark.parametrize(
    ("path", "status", "code", "detail"),
    [
        ("/v1/thing/break-down", 501, 1, "not here"),
        ("/v1/thing/break", 503, 0, "its log says why"),
        ("/v1/other/do-this", 501, 1, "not here"),
        ("/", 501, 1, "not here"),
        ("/v1/moved/do-this", 501, 1, "moved is there"),
        ("/v1/thing/pull-messages", 403, 0, "over"),
        ("/v1/thing/stream-logs", 404, 16, "no such run"),
    ],
)
async def test_what_cannot_be_answered(
    server: Server, path: str, status: int, code: int, detail: str, autojump_clock: MockClock
) -> None:
    answer = await (await server.http1()).post(path, b"refuse")
    assert answer.status == status
    said = json.loads(answer.body)
    assert said["code"] == code
    assert detail in said["detail"]


@pytest.mark.parametrize("page", ["https://elsewhere.example", "null"])
async def test_a_page_in_a_browser_is_refused(
    server: Server, page: str, autojump_clock: MockClock
) -> None:
    client = await server.http1()
    answer = await client.post("/v1/thing/do-this", b"request", [("origin", page)])
    assert answer.status == 403
    assert "not for pages in browsers" in json.loads(answer.body)["detail"]


async def test_calls_are_posted(server: Server, autojump_clock: MockClock) -> None:
    client = await server.http1()
    await client.send(b"GET /v1/thing/do-this HTTP/1.1\r\nhost: superlink\r\n\r\n")
    assert (await client.answer("GET")).status == 405
    await client.send(b"GET /health HTTP/1.1\r\nhost: superlink\r\n\r\n")
    assert (await client.answer("GET")).status == 200


async def test_who_waits_is_told_so_until_there_is_an_answer(
    server: Server, autojump_clock: MockClock
) -> None:
    client = await server.begin("pull-messages")
    for number in (1, 2, 3):
        interim = await client.stream.receive_some(1000)
        assert bytes(interim) == b"HTTP/1.1 102 Processing\r\n\r\n"
        assert trio.current_time() == pytest.approx(15 * number, abs=2)
    server.service.proceed.set()
    assert (await client.answer()).body == b"message"
    assert (await client.post("/v1/thing/do-this", b"next")).body == b"next"
    assert server.service.ended == ["arrived"]


@pytest.mark.parametrize(
    ("call", "ended"), [("pull-messages", "cancelled"), ("stream-logs", "streamed")]
)
async def test_a_client_that_goes_is_noticed(
    server: Server, call: str, ended: str, autojump_clock: MockClock
) -> None:
    client = await server.begin(call, b"request")
    await trio.sleep(1)
    assert server.service.ended == []
    await client.stream.aclose()
    await trio.sleep(1)
    assert server.service.ended == [ended]


async def test_a_stream_comes_in_frames(server: Server, autojump_clock: MockClock) -> None:
    client = await server.http1()
    server.service.proceed.set()
    answer = await client.post("/v1/thing/stream-logs", b"request")
    assert answer.headers["content-type"] == "application/flower-protobuf-stream"
    frames = b"".join(len(word).to_bytes(4, "big") + word for word in (b"one", b"two", b"request"))
    assert answer.body == frames


async def test_a_stream_that_is_refused_later_breaks_off(
    server: Server, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    client = await server.http1()
    await client.send(head("POST", "/v1/thing/stream-logs", 9) + b"break off")
    received = await client.ended()
    assert b"two" in received
    # A stream that is complete ends in an empty chunk.
    assert not received.endswith(b"0\r\n\r\n")
    assert not caplog.messages


async def test_what_is_held_is_answered_when_the_server_stops(
    server: Server, autojump_clock: MockClock
) -> None:
    client = await server.begin("pull-messages")
    await trio.sleep(1)
    before = trio.current_time()
    server.stopping.set()
    assert (await client.answer()).body == b"message"
    assert trio.current_time() - before < 1
