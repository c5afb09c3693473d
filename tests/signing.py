"""Who signs calls of Flower 1.23 and later, and the headers: nodes, and SuperExecs."""

from __future__ import annotations

import hashlib
import hmac
import secrets

import attrs
from peering import signing

from superlink_trio.rpc import Caller


@attrs.frozen
class Signer(signing.Signer):
    """A key pair that signs calls."""

    def caller(self, unix_seconds: float) -> Caller:
        return Caller("127.0.0.1:4711", self.headers(unix_seconds))


@attrs.frozen
class SuperExecSigner:
    """What signs the calls of a SuperExec with a secret."""

    secret: bytes
    method: str = "/flwr.proto.Runtime/AcquireTask"

    def headers(self, raw: bytes, unix_seconds: float, nonce: str = "") -> dict[str, str]:
        nonce = nonce or secrets.token_hex(16)
        digest = hashlib.sha256(raw).hexdigest()
        time = int(unix_seconds)
        words = f"method={self.method}", f"ts={time}", f"nonce={nonce}", f"body_sha256={digest}"
        key = hmac.digest(self.secret, b"superexec-auth-v1", "sha256")
        return {
            "flwr-superexec-ts": str(time),
            "flwr-superexec-nonce": nonce,
            "flwr-superexec-body-sha256": digest,
            "flwr-superexec-signature": hmac.digest(key, "\n".join(words).encode(), "sha256").hex(),
        }
