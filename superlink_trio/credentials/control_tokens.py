"""The tokens that let callers steer: who has one may run code on this machine."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Set
from contextlib import AbstractContextManager
from pathlib import Path

from superlink_trio.credentials.calls import Calls
from superlink_trio.credentials.files import Faults, FileFault, read

_log = logging.getLogger(__name__)

SHORTEST = 32
"""Characters of a token. Nothing slows down who tries one after the other."""

# What a header carries as it is. Source: RFC 6750, section 2.1 (b64token).
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")

_HOW = "make one with `openssl rand -hex 32`"


class ControlTokens:
    """The tokens that count now, each by its digest, and the calls that they hold open."""

    def __init__(self, digests: Set[bytes], *, source: Path) -> None:
        """`source` is the file that lists the tokens; it can be read again."""
        self.source = source
        self._digests: Set[bytes] = frozenset()
        self._calls = Calls("token")
        self.replace(digests)

    def replace(self, digests: Set[bytes]) -> None:
        """Let these tokens count from now on. Calls of those that count no more end at once."""
        for revoked in self._digests - digests:
            self._calls.revoke(revoked)
        self._digests = digests
        _log.info(
            "Tokens that let flwr in from everywhere: %d, in %s",
            *(len(digests), self.source),
            extra={"tokens": len(digests)},
        )

    def find(self, token: str) -> bytes | None:
        """Give the digest of a token that counts, None for another one.

        The time it takes says nothing of the tokens that do.
        """
        digest = _digest(token.encode())
        # A list, so that all of them are compared.
        matches = [hmac.compare_digest(digest, each) for each in self._digests]
        return digest if any(matches) else None

    def calling(self, digest: bytes) -> AbstractContextManager[None]:
        """Hold a call of a token inside the block. Raises Denied when that is revoked meanwhile."""
        return self._calls.calling(digest)


def read_tokens(source: Path) -> Set[bytes]:
    """Read a file of tokens, one a line, beside comments with a #; give their digests.

    Raises a FileFault, or an ExceptionGroup with one for every line that is no token.
    """
    faults = Faults()
    digests = set()
    for number, line in enumerate(read(source, private=True).splitlines(), 1):
        token = line.strip()
        if not token or token.startswith(b"#"):
            continue
        with faults.collect():
            _check(source, number, token)
            digests.add(_digest(token))
    faults.throw("tokens that cannot be used")
    if not digests:
        raise FileFault(source, f"holds no token: {_HOW}, one a line")
    return digests


def _check(source: Path, number: int, token: bytes) -> None:
    # The token itself is not told: a mistyped one is a secret still.
    if not _TOKEN.fullmatch(token):
        problem = "a token is letters, digits and -._~+/, without spaces"
    elif len(token) < SHORTEST:
        problem = f"a token has {SHORTEST} characters at least, this one has {len(token)}"
    else:
        return
    raise FileFault(source, f"line {number}: {problem}: {_HOW}")


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
