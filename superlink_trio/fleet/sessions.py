"""Nodes that have proved who they are need not do so again for a minute.

Checking a signature takes longer than all else that is done for a small call, and a model of 122
arrays is 248 calls. So a call whose signature was checked is answered with a cookie, and the node's
next calls bring it back: nodes of Flower 1.40 and later call by way of httpx, which keeps cookies.

A cookie stands for one key, and was made with a secret of this process, or of all workers of one
SuperLink. Who could take it from a call could take that call's signature as well, which is good for
five minutes; the cookie is so for one, and never for longer than the signature that it was given
for. It is bound to no connection, which a proxy may share among nodes.

Source: RFC 6265; RFC 2104.
"""

from __future__ import annotations

import hmac

from superlink_trio.fleet.signatures import read_claim
from superlink_trio.rpc import Caller
from superlink_trio.rpc.freshness import OLDEST

LASTS = 60
"""Seconds for which a cookie stands in for signatures."""

_NAME = "superlink-node"


class Sessions:
    """Checks signatures, those of a node once a minute."""

    def __init__(self, secret: bytes, *, secure: bool) -> None:
        """Make sessions of one API; `secure`: whether it is served over TLS.

        `secret`: 32 random bytes, which only processes have that take each other's cookies.
        """
        self._secret = secret
        self._attributes = "; Path=/v1/fleet; HttpOnly; SameSite=Strict"
        if secure:
            self._attributes += "; Secure"

    def verify(self, caller: Caller, now: float) -> bytes:
        """Give the public key of who calls, like `signatures.verify`; `now`: Unix seconds.

        Where that took a check, the answer brings the node a cookie. Raises Refused.
        """
        claim = read_claim(caller.metadata, now)
        token = _token(caller.metadata.get("cookie", ""))
        if not token or not self._holds(token, claim.key, now):
            claim.prove()
            until = int(min(now + LASTS, claim.signed_at + OLDEST))
            cookie = f"{_NAME}={until}.{self._mark(until, claim.key)}; Max-Age={LASTS}"
            caller.headers["set-cookie"] = cookie + self._attributes
        return claim.key

    def _holds(self, token: str, key: bytes, now: float) -> bool:
        digits, _, mark = token.partition(".")
        if not (digits.isascii() and digits.isdecimal() and len(digits) < 20 and mark.isascii()):
            return False
        until = int(digits)
        return now < until and hmac.compare_digest(mark, self._mark(until, key))

    def _mark(self, until: int, key: bytes) -> str:
        return hmac.digest(self._secret, b"%d." % until + key, "sha256").hex()


def _token(cookies: str) -> str:
    for cookie in cookies.split(";"):
        name, _, value = cookie.strip().partition("=")
        if name == _NAME:
            return value
    return ""
