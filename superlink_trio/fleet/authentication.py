"""Node authentication: the Fleet API for nodes that hold a listed key, and nobody else.

A node sends its public key with every call. CreateNode tells it the server's key; from then on it
signs each request (HMAC-SHA256) with the secret that the two pairs share. The signature is of the
deterministic serialisation, which need not be the bytes that travelled.

Whatever is wrong, the caller learns "Access denied" and nothing more; the log says what it was.
"""

from __future__ import annotations

import base64
import hmac
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

import attrs
import trio
from google.protobuf.message import DecodeError, Message

from superlink_trio.credentials.allow_list import NodeKeys
from superlink_trio.credentials.calls import Denied
from superlink_trio.credentials.node_keys import NodeKey
from superlink_trio.logs.context import note
from superlink_trio.logs.throttle import Throttle
from superlink_trio.rpc import (
    Api,
    Caller,
    Leased,
    Unary,
    malformed,
    parse,
    with_refusals,
)
from superlink_trio.state import Admission, State
from superlink_trio.wire import recordset_pb2 as whole
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.bulk import LARGE, in_thread_if_large
from superlink_trio.wire.splice import Malformed
from superlink_trio.wire.tasks import read_producers

_log = logging.getLogger(__name__)

PUBLIC_KEY, TOKEN = "public-key", "auth-token"
_TOKEN_SIZE = 32


@attrs.frozen
class _Rule:
    """What a signed call has to prove."""

    request: type[Message]
    """Parses all of the request, so that it can be serialised deterministically."""
    node_ids: Callable[[bytes], Collection[int]]
    """Reads which nodes the request speaks for; empty: whichever the key has. Raises Refused."""
    readmits: bool = False
    """Whether it may bind a key that has no node to the one that it speaks for."""


def _node_of(
    kind: type[pb.PingRequest] | type[pb.PullTaskInsRequest] | type[pb.DeleteNodeRequest],
) -> Callable[[bytes], Collection[int]]:
    return lambda raw: {parse(kind, raw).node.node_id}


def _producers(raw: bytes) -> Collection[int]:
    try:
        return read_producers(raw)
    except Malformed:
        raise malformed(pb.PushTaskResRequest) from None


_SIGNED: Mapping[str, _Rule] = {
    "DeleteNode": _Rule(pb.DeleteNodeRequest, _node_of(pb.DeleteNodeRequest)),
    "Ping": _Rule(pb.PingRequest, _node_of(pb.PingRequest), readmits=True),
    "PullTaskIns": _Rule(pb.PullTaskInsRequest, _node_of(pb.PullTaskInsRequest), readmits=True),
    "PushTaskRes": _Rule(whole.WholePushTaskResRequest, _producers, readmits=True),
    "GetRun": _Rule(pb.GetRunRequest, lambda _: ()),
}

# Their callers do not sign: the first cannot yet, and clients of 1.11 do not sign the second.
_UNSIGNED = frozenset({"CreateNode", "GetFab"})


def authenticated(fleet: Api, state: State, keys: NodeKeys, *, readmit: bool) -> Api:
    """Make the Fleet API that lets in what `keys` allows, and passes it on to `fleet`.

    `readmit`: whether a key that has no node is given the one that it says it had before. The API
    behind this one has no need to re-admit.
    """
    gate = _Gate(fleet=fleet, state=state, keys=keys, readmit=readmit)
    return with_refusals(
        attrs.evolve(
            fleet,
            unary={name: gate.unary(name, handler) for name, handler in fleet.unary.items()},
            leased={name: gate.leased(name, handler) for name, handler in fleet.leased.items()},
        )
    )


@attrs.frozen(kw_only=True)
class _Gate:
    fleet: Api
    state: State
    keys: NodeKeys
    readmit: bool
    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log))
    # Taking a large request apart takes twice its size once more: one at a time. Of each key only
    # one waits for that, so that nobody waits for all the junk that another key sends.
    rewriting: trio.Lock = attrs.field(factory=trio.Lock)
    turns: WeakValueDictionary[bytes, trio.Lock] = attrs.field(factory=WeakValueDictionary)

    def unary(self, name: str, handler: Unary) -> Unary:
        async def answer(raw: bytes, caller: Caller) -> bytes:
            async with self._admitted(name, raw, caller) as (known, admitted):
                # DeleteNode of a node that nobody has is done already.
                return await handler(raw, admitted) if known else b""

        return answer

    def leased(self, name: str, handler: Leased) -> Leased:
        @asynccontextmanager
        async def lease(raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
            async with (
                self._admitted(name, raw, caller) as (_, admitted),
                handler(raw, admitted) as answer,
            ):
                yield answer

        return lease

    @asynccontextmanager
    async def _admitted(
        self, name: str, raw: bytes, caller: Caller
    ) -> AsyncIterator[tuple[bool, Caller]]:
        """Give the block the caller by its key, and whether the node that it names is known.

        Raises Refused for a caller that may not do this, also when it is revoked meanwhile.
        """
        node: NodeKey | None = None
        try:
            node = self.keys.find(caller.metadata.get(PUBLIC_KEY))
            with self.keys.calling(node):
                known = await self._check(name, raw, caller, node)
                if name == "CreateNode":
                    caller.headers[PUBLIC_KEY] = self.keys.server.public.header
                yield known, attrs.evolve(caller, public_key=node.pem)
        except Denied as reason:
            self.keys.refuse(node, name, caller, reason)

    async def _check(self, name: str, raw: bytes, caller: Caller, node: NodeKey) -> bool:
        if name in _UNSIGNED:
            return True
        if name not in _SIGNED:
            raise Denied("nobody may call this")
        await self._check_token(_SIGNED[name], raw, caller, node)
        return await self._check_nodes(name, raw, node)

    async def _check_token(self, rule: _Rule, raw: bytes, caller: Caller, node: NodeKey) -> None:
        token = _read_token(caller.metadata.get(TOKEN))
        secret = self.keys.secret(node)
        if hmac.compare_digest(await _sign(secret, raw), token):
            return
        async with self._turn(node, len(raw)):
            rewritten = await in_thread_if_large(len(raw), _rewrite, rule.request, raw)
            if rewritten != raw and hmac.compare_digest(await _sign(secret, rewritten), token):
                return
        raise Denied("the token is not that of this request and this key")

    @asynccontextmanager
    async def _turn(self, node: NodeKey, size: int) -> AsyncIterator[None]:
        if size < LARGE:
            yield
        else:
            async with self.turns.setdefault(node.pem, trio.Lock()), self.rewriting:
                yield

    async def _check_nodes(self, name: str, raw: bytes, node: NodeKey) -> bool:
        """Check that the nodes a call speaks for are the key's; say whether that node is known."""
        rule = _SIGNED[name]
        node_ids = rule.node_ids(raw)
        if not node_ids:
            if await self.state.node_of_key(node.pem) is None:
                raise Denied("the key has no node")
            return True
        if len(set(node_ids)) > 1:
            raise Denied("the call speaks for several nodes")
        node_id = next(iter(node_ids))
        note(node_id=node_id)
        readmit = self.readmit and rule.readmits
        admission = await self.state.bind_node(node_id, node.pem, readmit=readmit)
        if admission is Admission.READMITTED:
            self.throttle.log(
                logging.INFO,
                node.pem,
                "Node %d came back with the key %s",
                *(node_id, node.fingerprint),
                extra={"node_id": node_id, "fingerprint": node.fingerprint},
            )
        if admission is Admission.UNKNOWN and name == "DeleteNode":
            return False
        if admission not in (Admission.KNOWN, Admission.READMITTED):
            raise Denied(f"node {node_id} is not the key's")
        return True


def _read_token(text: str | None) -> bytes:
    if text is None:
        raise Denied("no token was sent")
    try:
        token = base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        raise Denied("what was sent as token is none") from None
    if len(token) != _TOKEN_SIZE:
        raise Denied("what was sent as token is none")
    return token


async def _sign(secret: bytes, message: bytes) -> bytes:
    return await in_thread_if_large(len(message), hmac.digest, secret, message, "sha256")


def _rewrite(kind: type[Message], raw: bytes) -> bytes:
    """Serialise a request deterministically; what cannot be parsed stays as it is."""
    try:
        return kind.FromString(raw).SerializeToString(deterministic=True)
    except DecodeError:
        return raw
