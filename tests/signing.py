"""Nodes of Flower 1.23 and later, as APIs see them."""

from __future__ import annotations

import attrs
from peering import signing

from superlink_trio.rpc import Caller


@attrs.frozen
class Signer(signing.Signer):
    """A key pair that signs calls."""

    def caller(self, unix_seconds: float) -> Caller:
        return Caller("127.0.0.1:4711", self.headers(unix_seconds))
