"""Nodes that have proved who they are, and what stands in for their signatures then."""

from __future__ import annotations

from http.cookies import SimpleCookie

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import Signer

from superlink_trio.fleet.sessions import LASTS, Sessions
from superlink_trio.rpc import Caller, Refused
from superlink_trio.rpc.freshness import OLDEST

NOW = 1_800_000_000.0
FORGED = "AAAA"
SECRET = bytes(32)


@attrs.define
class Node:
    """A SuperNode that keeps its cookies."""

    sessions: Sessions = attrs.field(factory=lambda: Sessions(SECRET, secure=False))
    signer: Signer = attrs.field(factory=Signer)
    cookie: str = ""

    def call(self, now: float, *, signed: float | None = None, **replaced: str) -> bytes:
        """Call at `now`, with other headers in the place of its own, named with `_` for `-`."""
        own = {"cookie": self.cookie, **self.signer.headers(now if signed is None else signed)}
        others = {name.replace("_", "-"): value for name, value in replaced.items()}
        caller = Caller(metadata={**own, **others})
        try:
            return self.sessions.verify(caller, now)
        finally:
            for morsel in SimpleCookie(caller.headers.get("set-cookie", "")).values():
                self.cookie = f"{morsel.key}={morsel.value}"

    def forge(self, now: float, cookie: str | None = None, key: str | None = None) -> bytes:
        """Make a call that is let in by its cookie or not at all."""
        replaced = {"cookie": cookie, "flwr_public_key": key}
        others = {name: value for name, value in replaced.items() if value is not None}
        return self.call(now, signed=None, flwr_signature=FORGED, **others)


@pytest.fixture
def node() -> Node:
    node = Node()
    node.call(NOW)
    return node


def test_a_signature_is_checked_once_a_minute(node: Node) -> None:
    assert node.forge(NOW + LASTS - 1) == node.signer.public
    with pytest.raises(Refused, match="not that of the key"):
        node.forge(NOW + LASTS)
    node.call(NOW + LASTS)
    assert node.forge(NOW + LASTS + 1) == node.signer.public


def test_a_cookie_is_good_for_no_longer_than_the_signature_that_it_was_given_for() -> None:
    node = Node()
    node.call(NOW, signed=NOW - OLDEST + 10)
    assert node.forge(NOW + 9) == node.signer.public
    with pytest.raises(Refused):
        node.forge(NOW + 10)


def test_without_a_cookie_every_signature_is_checked(node: Node) -> None:
    with pytest.raises(Refused):
        node.forge(NOW, cookie="")


def test_a_cookie_is_good_for_its_key_only(node: Node) -> None:
    another = Signer().headers(NOW)["flwr-public-key"]
    with pytest.raises(Refused):
        node.forge(NOW, key=another)


def test_a_cookie_is_good_for_its_superlink_only(node: Node) -> None:
    node.sessions = Sessions(SECRET[:-1] + b"\1", secure=False)
    with pytest.raises(Refused):
        node.forge(NOW)


def test_a_cookie_does_not_stand_in_for_the_time(node: Node) -> None:
    with pytest.raises(Refused, match="set both clocks"):
        node.call(NOW + 1, signed=NOW - OLDEST)


def test_nobody_can_prolong_a_cookie(node: Node) -> None:
    name, _, value = node.cookie.partition("=")
    until, _, mark = value.partition(".")
    assert node.forge(NOW, cookie=f"{name}={until}.{mark}") == node.signer.public
    with pytest.raises(Refused):
        node.forge(NOW, cookie=f"{name}={int(until) + 1}.{mark}")


def test_cookies_of_others_do_no_harm(node: Node) -> None:
    cookie = f"balancer=7; {node.cookie}; path"
    assert node.forge(NOW, cookie=cookie) == node.signer.public


@pytest.mark.parametrize("secure", [True, False])
def test_over_tls_a_cookie_never_travels_without(secure: bool) -> None:
    caller = Caller(metadata=Signer().headers(NOW))
    Sessions(SECRET, secure=secure).verify(caller, NOW)
    [morsel] = SimpleCookie(caller.headers["set-cookie"]).values()
    assert bool(morsel["secure"]) is secure
    assert morsel["httponly"]
    assert (morsel["path"], morsel["max-age"]) == ("/v1/fleet", f"{LASTS}")


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_junk_is_no_cookie(value: str) -> None:
    node = Node(signer=SIGNER)
    for cookie in (value, f"superlink-node={value}", f"superlink-node={value}.{value}"):
        with pytest.raises(Refused):
            node.forge(NOW, cookie=cookie)


SIGNER = Signer()
