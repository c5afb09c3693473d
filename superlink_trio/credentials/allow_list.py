"""The nodes that are let in: those whose public key is listed, and the calls that they make now."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from superlink_trio.credentials.calls import Calls, Denied
from superlink_trio.credentials.node_keys import NodeKey, ServerKey, warn_of_unusable
from superlink_trio.logs import Throttle
from superlink_trio.rpc import Caller, Refused, Status

_log = logging.getLogger(__name__)

# Seconds between two log lines about refusals of the same key, or of keys that are not listed.
_LOG_EVERY = 10.0


class NodeKeys:
    """Who may call, and who does at this moment."""

    def __init__(self, server: ServerKey, nodes: Mapping[bytes, NodeKey], *, source: Path) -> None:
        """`source` is the file that lists `nodes`; it can be read again."""
        self.server = server
        self.source = source
        self.refused = 0
        """How many calls were refused so far."""
        self._nodes: Mapping[bytes, NodeKey] = {}
        self._by_header: Mapping[str, NodeKey] = {}
        self._secrets: dict[bytes, bytes] = {}
        self._calls = Calls("key")
        self._throttle = Throttle(_log, burst=1, period=_LOG_EVERY)
        self.replace(nodes)

    def replace(self, nodes: Mapping[bytes, NodeKey]) -> None:
        """List these nodes from now on. Calls of keys that are on the list no more end at once."""
        warn_of_unusable(self.server, nodes)
        revoked = self._nodes.keys() - nodes.keys()
        added = len(nodes.keys() - self._nodes.keys())
        self._nodes = nodes
        self._by_header = {node.header: node for node in nodes.values()}
        for pem in revoked:
            self._secrets.pop(pem, None)
            self._calls.revoke(pem)
        _log.info(
            "Keys of nodes that are listed: %d (%d new, %d revoked)",
            *(len(nodes), added, len(revoked)),
            extra={"keys": len(nodes), "new": added, "revoked": len(revoked)},
        )

    def find(self, header: str | None) -> NodeKey:
        """Give the listed key that a header names. Raises Denied."""
        if header is None:
            raise Denied("no public key was sent")
        node = self._by_header.get(header)
        if node is None:
            try:
                sent = NodeKey.from_header(header)
            except ValueError:
                raise Denied("what was sent as public key is none") from None
            node = self._nodes.get(sent.pem)
            if node is None:
                raise Denied("the key is not listed", sent.fingerprint)
        if not self.server.shares_curve_with(node):
            raise Denied(f"the key is on another curve than the server's ({self.server.curve})")
        return node

    def secret(self, node: NodeKey) -> bytes:
        """Give the secret that is shared with a listed node."""
        secret = self._secrets.get(node.pem)
        if secret is None:
            secret = self._secrets[node.pem] = self.server.secret(node)
        return secret

    def calling(self, node: NodeKey) -> AbstractContextManager[None]:
        """Hold a call of this key inside the block. Raises Denied when it is revoked meanwhile."""
        return self._calls.calling(node.pem)

    def refuse(self, node: NodeKey | None, call: str, caller: Caller, reason: Denied) -> NoReturn:
        """Count a refusal, log it unless that was done a moment ago, and raise it."""
        self.refused += 1
        fingerprint = reason.fingerprint if node is None else node.fingerprint
        self._throttle.log(
            logging.WARNING,
            # All that are not listed are one: how many keys there are is the caller's choice.
            b"" if node is None else node.pem,
            "Access denied to %s with the key %s: %s (%s)",
            *(caller.connection, fingerprint or "unknown", reason, call),
            extra={"fingerprint": fingerprint, "call": call, "refused": self.refused},
        )
        raise Refused(Status.UNAUTHENTICATED, "Access denied", reason="authentication") from None
