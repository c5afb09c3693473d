"""Paths, headers, quirks and errors, as clients see them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message
from transport.http.clients import FLEET, PROTOBUF, Http1, head

from superlink_trio.rpc import Api, Caller, Holds, Refused, Status
from superlink_trio.transport.http import HttpOptions
from superlink_trio.transport.http.rest import fleet_site

CALLS = {
    "/api/v0/fleet/create-node": b"CreateNode:\x09request",
    "/api/v0/fleet/delete-node": b"DeleteNode:\x09request",
    "/api/v0/fleet/ping": b"Ping:\x09request",
    "/api/v0/fleet/pull-task-ins": b"PullTaskIns:\x09request",
    "/api/v0/fleet/push-task-res": b"PushTaskRes:\x09request",
    "/api/v0/fleet/get-run": b"GetRun:\x09request",
    "/api/v0/fleet/get-fab": b"GetFab:\x09request",
    "//api/v0/fleet/get-run": b"GetRun:\x09request",
    "//api/v0/fleet/get-fab": b"GetFab:\x09request",
}


@pytest.mark.parametrize("path", CALLS)
async def test_each_path_is_a_call(serving: Any, path: str) -> None:
    async with serving() as server:
        client = await server.http1()
        answer = await client.post(path, b"\x09request")
        assert (answer.status, answer.body) == (200, CALLS[path])
        # 1.8 to 1.11 take an answer for none if this is anything else.
        assert answer.headers["content-type"] == "application/protobuf"


async def test_a_connection_serves_one_call_after_the_other(serving: Any) -> None:
    async with serving() as server:
        client = await server.http1()
        for number in (b"1", b"2", b"3"):
            assert (await client.post(FLEET + "ping", number)).body == b"Ping:" + number


@pytest.mark.parametrize(
    ("request_", "call"), [(b"", b"CreateNode"), (b"\x09", b"CreateNode"), (b"\x0a", b"DeleteNode")]
)
async def test_a_delete_node_posted_to_create_node_deletes(
    serving: Any, request_: bytes, call: bytes
) -> None:
    async with serving() as server:
        assert (await server.post("create-node", request_)).body == call + b":" + request_


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ([("accept", "application/protobuf")], "Content-Type"),
        ([("content-type", "text/plain"), ("accept", "application/protobuf")], "Content-Type"),
        ([("content-type", "application/protobuf")], "Accept"),
        ([("content-type", "application/protobuf"), ("accept", "*/*")], "Accept"),
    ],
)
async def test_other_media_types_are_refused(
    serving: Any, headers: list[tuple[str, str]], named: str
) -> None:
    async with serving() as server:
        client = await server.http1()
        answer = await client.post(FLEET + "ping", headers=headers)
        assert (answer.status, answer.problem["title"]) == (400, "Bad Request")
        assert f"{named} must be application/protobuf" in answer.problem["detail"]


async def test_media_types_may_be_written_in_other_ways(serving: Any) -> None:
    headers = [
        ("content-type", "Application/Protobuf; charset=binary"),
        ("accept", "text/html, application/protobuf;q=0.9"),
    ]
    async with serving() as server:
        assert (await (await server.http1()).post(FLEET + "ping", headers=headers)).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/api/v0/fleet/", "/api/v0/fleet/ping/", "//api/v0/fleet/ping"]
)
async def test_other_paths_are_not_found(serving: Any, path: str) -> None:
    async with serving() as server:
        answer = await (await server.http1()).post(path)
        assert (answer.status, answer.problem["title"]) == (404, "Not Found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "BREW"])
async def test_other_methods_are_not_allowed(serving: Any, method: str) -> None:
    async with serving() as server:
        client = await server.http1()
        await client.send(head(method, FLEET + "ping"))
        answer = await client.answer(method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert method in answer.problem["detail"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.INVALID_ARGUMENT, 400),
        (Status.UNAUTHENTICATED, 401),
        (Status.NOT_FOUND, 404),
        (Status.INTERNAL, 500),
        (Status.UNIMPLEMENTED, 501),
        (Status.RESOURCE_EXHAUSTED, 507),
    ],
)
async def test_a_refusal_becomes_a_problem_document(
    serving: Any, status: Status, expected: int
) -> None:
    async def refuse(request: bytes, caller: Caller) -> bytes:
        raise Refused(status, "because: é\r\n")

    @asynccontextmanager
    async def refuse_pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        raise Refused(status, "because: é\r\n")
        yield

    async with serving(unary={"GetRun": refuse}, pull=refuse_pull) as server:
        for call in ("get-run", "pull-task-ins"):
            answer = await server.post(call)
            assert answer.status == expected
            assert answer.problem["detail"] == "because: é\r\n"


async def test_in_an_outage_only_what_is_called_again_anyway_is_answered(serving: Any) -> None:
    """To Flower's clients 503 is final, and an answer that they push is lost."""

    async def refuse(request: bytes, caller: Caller) -> bytes:
        raise Refused(Status.UNAVAILABLE, "because")

    @asynccontextmanager
    async def refuse_pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        raise Refused(Status.UNAVAILABLE, "because")
        yield

    calls = ("create-node", "delete-node", "ping", "push-task-res", "get-run", "get-fab")
    names = ("CreateNode", "DeleteNode", "Ping", "PushTaskRes", "GetRun", "GetFab")
    async with serving(unary=dict.fromkeys(names, refuse), pull=refuse_pull) as server:
        for call in (*calls, "pull-task-ins"):
            if call in ("ping", "pull-task-ins"):
                answer = await server.post(call)
                assert (answer.status, answer.headers["retry-after"]) == (503, "3")
            else:
                with pytest.raises(EOFError):
                    await server.post(call)


async def test_a_failure_is_logged_and_not_told(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(request: bytes, caller: Caller) -> bytes:
        raise ExceptionGroup("several", [ValueError("a secret")])

    async with serving(unary={"Ping": fail}) as server:
        client = await server.http1()
        answer = await client.post(FLEET + "ping")
        assert answer.status == 500
        assert b"secret" not in answer.body
        assert (await client.post(FLEET + "get-run")).status == 200
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "Ping failed" in record.getMessage()
    assert record.exc_info is not None


async def test_a_client_may_ask_before_it_sends_the_body(serving: Any) -> None:
    async with serving() as server:
        client = await server.http1()
        await client.send(head("POST", FLEET + "ping", 3, [*PROTOBUF, ("expect", "100-continue")]))
        assert (await client.stream.receive_some(1000)).startswith(b"HTTP/1.1 100 ")
        await client.send(b"abc")
        assert (await client.answer()).body == b"Ping:abc"


@pytest.mark.parametrize(("path", "line"), [("ping", b"200 OK"), ("pong", b"404 Not Found")])
async def test_the_status_is_said_in_words_as_well(serving: Any, path: str, line: bytes) -> None:
    async with serving() as server:
        client = await server.http1()
        await client.send(head("POST", FLEET + path))
        answer = await client.stream.receive_some(1000)
        assert answer.startswith(b"HTTP/1.1 " + line + b"\r\n")


async def test_a_handler_learns_who_calls(serving: Any) -> None:
    callers: list[Caller] = []

    async def remember(request: bytes, caller: Caller) -> bytes:
        callers.append(caller)
        return b""

    async with serving(unary={"Ping": remember}) as server:
        stream = await server.connect()
        host, port = stream.socket.getsockname()
        await Http1(stream).post(FLEET + "ping", headers=[*PROTOBUF, ("X-Token", "Ä")])
    assert callers[0].connection == f"{host}:{port}"
    assert callers[0].metadata["x-token"].encode("latin-1") == "Ä".encode()


@given(
    path=st.sampled_from([*CALLS, "/", "/é", "/api/v0/fleet/x"]) | st.text(),
    method=st.sampled_from(["POST", "GET", "PRI"]),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"accept", b"content-length", b"x"]),
            st.sampled_from([b"application/protobuf", b"", b",;,", b"-1", b"9" * 5000, b"\xff"])
            | st.binary(),
        )
    ),
    body=st.lists(st.binary(max_size=50), max_size=4),
)
async def test_every_request_has_one_whole_answer(
    path: str, method: str, headers: list[tuple[bytes, bytes]], body: list[bytes]
) -> None:
    async def answer(request: bytes, caller: Caller) -> bytes:
        return request

    @asynccontextmanager
    async def pull(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        yield request

    names = ("CreateNode", "DeleteNode", "Ping", "PushTaskRes", "GetRun", "GetFab")
    api = Api(
        service="test.Fleet",
        unary=dict.fromkeys(names, answer),
        leased={"PullTaskIns": pull},
        holds=Holds(),
    )
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    app = fleet_site(api, HttpOptions(), trio.Event()).app
    await app(scope, receive, send)
    start, rest = sent
    assert start["status"] in {200, 400, 404, 405, 413}
    assert dict(start["headers"])[b"content-length"] == b"%d" % len(rest["body"])
