"""What is used of Hypercorn without being public: this fails when it moves."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

import h11
import pytest
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from packaging.requirements import Requirement
from starlette.types import Message, Scope, Send

from superlink_trio.transport.http import protocol
from superlink_trio.transport.http.protocol import Http11


class Owner:
    """A connection that remembers what its protocol asks of it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.respond: list[Send] = []
        self.body: list[Message] = []
        self.written: list[bytes] = []
        self.ended = False

    def begin(self, scope: Scope, respond: Send) -> Send:
        self.scopes.append(scope)
        self.respond.append(respond)
        return self._put

    async def _put(self, message: Message) -> None:
        self.body.append(message)

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    def end(self) -> None:
        self.ended = True


def http11(owner: Owner) -> Http11:
    peers = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
    return Http11(owner, max_header_size=1000, tls=False, **peers)


def test_a_protocol_is_made_of_what_we_give_it() -> None:
    wanted = {"app", "config", "context", "task_group", "connection_state", "ssl"}
    wanted |= {"client", "server", "send"}
    assert set(inspect.signature(H11Protocol.__init__).parameters) - {"self"} == wanted
    assert list(inspect.signature(H11Protocol.handle).parameters) == ["self", "event"]


@pytest.mark.parametrize("name", ["_check_protocol", "_create_stream", "stream_send"])
def test_what_we_override_and_call_is_there(name: str) -> None:
    ours, theirs = (getattr(it, name) for it in (protocol._WithoutUpgrades, H11Protocol))
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
    assert inspect.iscoroutinefunction(theirs)


def test_nothing_else_is_overridden_by_accident() -> None:
    ours = {name for name, it in vars(protocol._WithoutUpgrades).items() if inspect.isfunction(it)}
    assert ours & set(vars(H11Protocol)) == {"__init__", "_check_protocol", "_create_stream"}


def test_settings_have_the_names_that_we_set() -> None:
    ours, theirs = vars(protocol._config(1000)), Config()
    assert all(hasattr(theirs, name) for name in ours)
    assert protocol._config(1000).log.error_logger is None, "it would write to stderr"


async def test_a_request_and_its_answer() -> None:
    owner = Owner()
    connection = http11(owner)
    assert isinstance(connection._protocol.connection, h11.Connection)
    request = b"POST /%61?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    await connection.receive(request)
    await connection.receive(b"abc")
    [scope] = owner.scopes
    assert (scope["type"], scope["http_version"], scope["method"]) == ("http", "1.1", "POST")
    assert (scope["path"], scope["query_string"], scope["root_path"]) == ("/a", b"b", "")
    assert scope["raw_path"] == b"/%61"
    assert (scope["client"], scope["scheme"]) == (("127.0.0.1", 1), "http")
    assert dict(scope["headers"])[b"content-length"] == b"3"
    assert [message["body"] for message in owner.body] == [b"abc", b""]
    assert [message["more_body"] for message in owner.body] == [True, False]
    assert owner.written == []

    [respond] = owner.respond
    headers = [(b"content-length", b"2")]
    await respond({"type": "http.response.start", "status": 404, "headers": headers})
    await respond({"type": "http.response.body", "body": b"no", "more_body": False})
    answer = b"".join(owner.written)
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n")
    assert answer.endswith(b"\r\n\r\nno")
    assert not owner.ended
    assert len(owner.body) == 2


async def test_what_comes_too_early_waits_unread() -> None:
    owner = Owner()
    connection = http11(owner)
    await connection.receive(b"POST / HTTP/1.1\r\nHost: x\r\n")
    assert connection.unread == len(b"POST / HTTP/1.1\r\nHost: x\r\n")
    await connection.receive(b"\r\n")
    assert connection.unread == 0


async def test_bytes_that_are_no_request_are_answered_and_end_the_connection() -> None:
    for junk, status in ((b"junk\r\n\r\n", b"400 Bad"), (b"x" * 2000, b"431 Request")):
        owner = Owner()
        await http11(owner).receive(junk)
        assert b"".join(owner.written).startswith(b"HTTP/1.1 " + status)
        assert owner.ended


def test_what_is_installed_is_what_was_tested() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    [pin] = [
        requirement
        for requirement in map(Requirement, project["project"]["dependencies"])
        if requirement.name == "hypercorn"
    ]
    assert pin.specifier.contains(version("hypercorn"))
    assert not pin.specifier.contains("0.19.0")
