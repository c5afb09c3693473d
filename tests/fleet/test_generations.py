"""Two generations of the Fleet API under one name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from superlink_trio.fleet.generations import both
from superlink_trio.rpc import Api, Caller, Holds, Unary
from superlink_trio.wire import messages_pb2 as new
from superlink_trio.wire import superlink_pb2 as old

CALLER = Caller()


def saying(word: bytes) -> Unary:
    async def answer(raw: bytes, caller: Caller) -> bytes:
        return word

    return answer


def an_api(word: bytes, *names: str) -> Api:
    calls = {name: saying(word) for name in (*names, "GetRun", "GetFab")}
    return Api(service="flwr.proto.Fleet", unary=calls, leased={}, holds=Holds())


@pytest.fixture
def api() -> Api:
    return both(an_api(b"tasks", "Ping"), an_api(b"messages", "RegisterNode"))


@pytest.mark.parametrize(
    ("name", "request_", "which"),
    [
        ("Ping", lambda: old.PingRequest(), b"tasks"),
        ("RegisterNode", lambda: new.RegisterNodeFleetRequest(), b"messages"),
        ("GetRun", lambda: old.GetRunRequest(run_id=-5), b"tasks"),
        ("GetRun", lambda: old.GetRunRequest(), b"tasks"),
        ("GetRun", lambda: new.GetRunRequest(node=new.Node(node_id=7), run_id=5), b"messages"),
        ("GetFab", lambda: old.GetFabRequest(hash_str="a" * 64), b"tasks"),
        ("GetFab", lambda: old.GetFabRequest(), b"tasks"),
        (
            "GetFab",
            lambda: new.GetFabRequest(node=new.Node(node_id=7), hash_str="a" * 64, run_id=5),
            b"messages",
        ),
    ],
)
async def test_each_request_reaches_its_generation(
    api: Api, name: str, request_: Callable[[], old.PingRequest], which: bytes
) -> None:
    assert await api.unary[name](request_().SerializeToString(), CALLER) == which
