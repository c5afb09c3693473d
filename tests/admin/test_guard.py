from __future__ import annotations

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Scope

from superlink_trio.admin.guard import Guard

APP = PlainTextResponse("here you are\n")


async def ask(
    guard: Guard, host: str | None = "localhost:9190", method: str = "GET"
) -> tuple[int, dict[str, str], str]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    headers = [] if host is None else [(b"host", host.encode())]
    scope: Scope = {"type": "http", "method": method, "path": "/", "headers": headers}
    await guard(scope, receive, send)
    fields = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], fields, sent[1]["body"].decode()


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:9190", "LOCALHOST.", "a.localhost"),
        *("127.0.0.1", "127.8.9.1:80", "[::1]", "[::1]:9190"),
    ],
)
async def test_names_of_this_machine_are_answered(host: str) -> None:
    assert (await ask(Guard(APP, loopback=True), host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *(None, "", "[", "evil.example", "localhost.evil.example", "notlocalhost"),
        *("192.0.2.1", "[::2]:80", "127.0.0.1.evil.example", "evil.example:127.0.0.1"),
    ],
)
async def test_other_names_are_not(host: str | None) -> None:
    status, _, text = await ask(Guard(APP, loopback=True), host)
    assert status == 421
    assert "localhost" in text


async def test_whoever_serves_others_is_called_by_any_name() -> None:
    assert (await ask(Guard(APP, loopback=False), "superlink.example"))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
async def test_nothing_but_reading_is_possible(method: str) -> None:
    status, headers, text = await ask(Guard(APP, loopback=True), method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert method in text


async def test_a_head_has_no_body() -> None:
    status, headers, text = await ask(Guard(APP, loopback=True), method="HEAD")
    assert (status, headers["content-length"], text) == (200, "13", "")


@pytest.mark.parametrize("host", ["localhost", "evil.example"])
async def test_no_answer_is_kept_or_taken_for_something_else(host: str) -> None:
    _, headers, _ = await ask(Guard(APP, loopback=True), host)
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
