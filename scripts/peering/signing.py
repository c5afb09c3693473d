"""Nodes of Flower 1.23 and later: a key, and the headers that sign a call with it."""

from __future__ import annotations

import base64
import datetime

import attrs
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@attrs.frozen
class Signer:
    """A key pair that signs calls."""

    key: ec.EllipticCurvePrivateKey = attrs.field(
        factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    @property
    def public(self) -> bytes:
        """The public key, as PEM SubjectPublicKeyInfo."""
        return self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def headers(self, unix_seconds: float) -> dict[str, str]:
        """Sign a call that is made then."""
        time = datetime.datetime.fromtimestamp(unix_seconds, tz=datetime.UTC).isoformat()
        signature = self.key.sign(time.encode(), ec.ECDSA(hashes.SHA256()))
        return {
            "flwr-public-key": base64.b64encode(self.public).decode(),
            "flwr-signature": base64.b64encode(signature).decode(),
            "flwr-timestamp": time,
        }
