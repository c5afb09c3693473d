"""Network addresses as people write them: `host:port`, `[v6]:port`, `domain:port`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

import attrs

# One label of a domain name; underscores are not in RFC 1123 but are common in container networks.
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_SCOPE = re.compile(r"[\w.-]+", re.ASCII)
_BRACKETED = re.compile(r"\[(?P<host>[^\[\]]*)\]:(?P<port>.*)", re.DOTALL)


@attrs.frozen
class Address:
    """A host (IPv4, IPv6 without brackets, or a domain name) and a port (0 picks a free one)."""

    host: str
    port: int
    bound: Sequence[Address] = attrs.field(default=(), eq=False, repr=False, kw_only=True)
    """Where a server that listens on it really does: numeric addresses. Empty before that."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises ValueError with a message that says what is wrong and what to write instead.
        """
        bracketed = _BRACKETED.fullmatch(text)
        if bracketed is not None:
            host, port = bracketed["host"], bracketed["port"]
            if not _is_ipv6(host):
                raise ValueError(f"{text!r}: {host!r} is not an IPv6 address")
        else:
            host, colon, port = text.rpartition(":")
            if not colon:
                raise ValueError(
                    f"{text!r} names no port: write host:port, for example {text}:9091"
                )
            if ":" in host:
                raise ValueError(f"{text!r}: put an IPv6 address in brackets, as in [::1]:9091")
            _check_host(text, host)
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f"{text!r}: the port must be a number from 0 to 65535, not {port!r}")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host.lower() == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _is_ipv6(host: str) -> bool:
    try:
        scope = ipaddress.IPv6Address(host).scope_id
    except ValueError:
        return False
    # The standard library takes any text after the %, line breaks included.
    return scope is None or _SCOPE.fullmatch(scope) is not None


def _check_host(text: str, host: str) -> None:
    if not host:
        raise ValueError(f"{text!r} names no host: write 0.0.0.0{text} for every interface")
    if re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{text!r}: {host!r} is not an IPv4 address") from None
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise ValueError(f"{text!r}: {host!r} is no host name")
