"""Who calls: nodes of Flower 1.23 and later sign the time of each call with their key.

Neither the call's name nor its content is signed: whoever sees one call's headers can use them for
five minutes, as that node. TLS keeps them from being seen.

Source: the SuperNodes of Flower 1.23 to 1.42; ECDSA with SHA-256 over the ISO 8601 time.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Mapping
from functools import lru_cache

import attrs
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from superlink_trio.rpc import Refused, Status
from superlink_trio.rpc.freshness import staleness

_KEY, _SIGNATURE, _TIME = "flwr-public-key", "flwr-signature", "flwr-timestamp"

_LONGEST = 4096


@attrs.frozen
class Claim:
    """Who a call says that it is from; `prove` finds out whether that is true."""

    key: bytes
    """The public key, as PEM SubjectPublicKeyInfo."""
    signed_at: float
    """Unix seconds."""
    _time: str
    _signature: bytes

    def prove(self) -> None:
        """Check the signature: half a millisecond for a key on P-384, a tenth of one on P-256.

        Raises Refused (UNAUTHENTICATED).
        """
        try:
            _load(self.key).verify(self._signature, self._time.encode(), ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, UnicodeEncodeError):
            raise _refusal("the signature is not that of the key") from None


def verify(headers: Mapping[str, str], now: float) -> bytes:
    """Check the signature in a call's headers; give the public key, as PEM SubjectPublicKeyInfo.

    `now`: Unix seconds. Raises Refused (UNAUTHENTICATED), which says what is wrong: the node's
    operator has to mend it.
    """
    claim = read_claim(headers, now)
    claim.prove()
    return claim.key


def read_claim(headers: Mapping[str, str], now: float) -> Claim:
    """Read who a call says that it is from, and check that it was signed about now.

    `now`: Unix seconds. Raises Refused (UNAUTHENTICATED).
    """
    key, signature = _binary(headers, _KEY), _binary(headers, _SIGNATURE)
    time = headers.get(_TIME, "")
    try:
        signed_at = datetime.datetime.fromisoformat(time)
    except ValueError:
        raise _refusal(f"the header {_TIME} is {time[:40]!r}, no time") from None
    if signed_at.tzinfo is None:
        signed_at = signed_at.replace(tzinfo=datetime.UTC)
    if stale := staleness(signed_at.timestamp(), now):
        raise _refusal(stale)
    return Claim(key, signed_at.timestamp(), time, signature)


def _binary(headers: Mapping[str, str], name: str) -> bytes:
    text = headers.get(name, "")
    if not 0 < len(text) <= _LONGEST:
        raise _refusal(f"the header {name} is missing or too long: nodes sign their calls")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _refusal(f"the header {name} is no base64") from None


def check_key(pem: bytes) -> None:
    """Raise Refused where a key is none that a node can have."""
    _load(pem)


@lru_cache(maxsize=4096)
def _load(pem: bytes) -> ec.EllipticCurvePublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        raise _refusal("the public key is no PEM") from None
    except UnsupportedAlgorithm as error:
        raise _refusal(f"the public key cannot be used: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _refusal("the public key is no EC key")
    return key


def _refusal(reason: str) -> Refused:
    return Refused(Status.UNAUTHENTICATED, f"Invalid SuperNode authentication: {reason}.")
