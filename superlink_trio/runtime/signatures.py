"""Who asks for runs: SuperExecs sign each call with a secret that the operator has given to both.

The call's name, its content, its time and a number that is used once are signed. So who has seen a
call cannot make another one of it, nor repeat it.

Source: `flower-superexec` of Flower 1.39 to 1.42; HMAC with SHA-256, twice: the key is made of the
secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping

import attrs

from superlink_trio.credentials import SharedSecret
from superlink_trio.rpc.freshness import NEWEST, OLDEST, staleness

_TIME, _NONCE = "flwr-superexec-ts", "flwr-superexec-nonce"
_SIGNATURE = "flwr-superexec-signature"

_PURPOSE = b"superexec-auth-v1"

_WHOLE_NUMBER = re.compile(r"\d{1,19}", re.ASCII)


@attrs.define(eq=False)
class Signatures:
    """Checks signatures; remembers those that were right for as long as they would be again."""

    secret: SharedSecret
    _used: dict[str, float] = attrs.field(factory=dict, init=False, repr=False)
    """When each number was used, in Unix seconds; the oldest first."""

    def fault(self, method: str, raw: bytes, headers: Mapping[str, str], now: float) -> str | None:
        """Say what is wrong with the signature of a call, and what to do; None if it is right.

        `method`: gRPC's name of it, `/flwr.proto.Runtime/AcquireTask`. `now`: Unix seconds.
        """
        time, nonce = headers.get(_TIME, ""), headers.get(_NONCE, "")
        signature = headers.get(_SIGNATURE, "")
        if not (nonce and signature and _WHOLE_NUMBER.fullmatch(time)):
            return (
                "its call is not signed: start it with --superexec-auth-secret-file, and the file "
                "that this SuperLink has"
            )
        if stale := staleness(int(time), now):
            return stale
        right = self._sign(method, raw, time, nonce)
        if not hmac.compare_digest(right.encode(), signature.encode()):
            return (
                "it has another secret: give its --superexec-auth-secret-file the same content as "
                "this SuperLink's"
            )
        return None if self._use(nonce, now) else "its call was made before: somebody repeats it"

    def _sign(self, method: str, raw: bytes, time: str, nonce: str) -> str:
        key = hmac.digest(self.secret.value, _PURPOSE, "sha256")
        # Whole numbers are signed as people write them.
        signed = (
            f"method={method}\nts={int(time)}\nnonce={nonce}\n"
            f"body_sha256={hashlib.sha256(raw).hexdigest()}"
        )
        return hmac.new(key, signed.encode(), "sha256").hexdigest()

    def _use(self, nonce: str, now: float) -> bool:
        """Note that a number is used; say whether it was not yet."""
        while self._used:
            oldest = next(iter(self._used))
            if self._used[oldest] > now - (OLDEST - NEWEST):
                break
            del self._used[oldest]
        if nonce in self._used:
            return False
        self._used[nonce] = now
        return True
