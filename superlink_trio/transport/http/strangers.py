"""Clients that speak something else than what they are offered, and what their first bytes tell."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping

import attrs

from superlink_trio.logs.throttle import Throttle

_log = logging.getLogger(__name__)

# Source: RFC 9113, section 3.4; RFC 8446, section 5.1.
_HTTP_2, _TLS = b"PRI * HTTP/2", b"\x16\x03"

_SPEAKS_HTTP_2 = (
    "it speaks HTTP/2, as gRPC does, and this port HTTP/1.1: let a node connect by REST, and a "
    "driver to the Driver API"
)
_SPEAKS_TLS = (
    "it speaks TLS, and this port does not: let it connect to http://, or give REST a certificate "
    "(--ssl-certfile FILE --ssl-keyfile FILE)"
)
_SPEAKS_PLAINLY = "it speaks no TLS, and this port does: let it connect to https://"
_TRUSTS_NOT = (
    "it does not trust the certificate of this port: give it that of the authority "
    "(--root-certificates FILE, or the variable REQUESTS_CA_BUNDLE)"
)
_HUNG_UP = "it hung up right after the TLS handshake, as clients of gRPC do: this port serves REST"

_HANDSHAKES: Mapping[str, str] = {
    "HTTP_REQUEST": _SPEAKS_PLAINLY,
    "WRONG_VERSION_NUMBER": _SPEAKS_PLAINLY,
    "TLSV1_ALERT_UNKNOWN_CA": _TRUSTS_NOT,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _TRUSTS_NOT,
    "SSLV3_ALERT_BAD_CERTIFICATE": _TRUSTS_NOT,
}


@attrs.frozen
class Strangers:
    """Tells of clients that cannot get in, a line a minute for each host."""

    throttle: Throttle = attrs.field(factory=lambda: Throttle(_log, burst=1))

    def handshake_failed(self, host: str, error: BaseException | None) -> None:
        """Say what a TLS handshake failed for, where that is known."""
        reason = error.reason if isinstance(error, ssl.SSLError) else None
        words = _HANDSHAKES.get(reason or "")
        if words is not None:
            self._tell(host, words)

    def began(self, host: str, data: bytes | bytearray) -> None:
        """Look at the first bytes of a connection."""
        if data.startswith(_HTTP_2):
            self._tell(host, _SPEAKS_HTTP_2)
        elif data.startswith(_TLS):
            self._tell(host, _SPEAKS_TLS)

    def hung_up(self, host: str) -> None:
        """Tell of a client that agreed on TLS, but on no protocol, and went without a word."""
        self._tell(host, _HUNG_UP)

    def _tell(self, host: str, words: str) -> None:
        self.throttle.log(logging.WARNING, host, "A client on %s cannot get in: %s", host, words)
