"""How a REST server behaves, and what it bears from its clients."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class HttpOptions:
    """Limits of a REST server. Times are in seconds, sizes in bytes.

    What is over a limit is refused, or its connection closed, without hurting the others.
    """

    grace: float = 10.0
    """How long calls may go on once the server is asked to stop."""
    max_body: int = 536_870_912
    """The largest request taken; gRPC's limit for a message of Flower's clients."""
    max_bodies: int = 2_147_483_648
    """All requests that are being received or worked on, together, `max_body` at
    least. When they are too many the slowest loses its connection."""
    max_answers: int = 2_147_483_648
    """All answers on their way, together. A pull that would be one too many is refused (503)."""
    max_calls: int = 32_768
    """Calls under way at the same time, held ones included."""
    max_head: int = 16_384
    """The largest head of a request: its first line and header fields."""
    head_timeout: float = 20.0
    """How long the head of a request may take once its first byte is here, a TLS handshake too."""
    body_timeout: float = 20.0
    """How long a body may bring nothing, or less than `min_body_rate`."""
    min_body_rate: float = 4096.0
    """Bytes a second that the slowest honest link brings."""
    write_timeout: float = 30.0
    """How long a client may take to accept the next 64 KiB of its answer."""
    keep_alive: float = 60.0
    """How long a connection may wait without a request."""
    max_connections: int = 16_384
    """Connections in all; fewer where the process may not open as many files."""
    max_connections_per_address: int = 16_384
    """Connections from one IP address. Behind a proxy all come from one."""

    @property
    def room(self) -> int:
        """Bytes that requests have together: always enough for the largest one."""
        return max(self.max_bodies, self.max_body + self.max_head + 65_536)
