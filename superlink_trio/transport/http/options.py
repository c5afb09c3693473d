"""How a REST server behaves, and what it bears from its clients."""

from __future__ import annotations

import attrs

from superlink_trio.config import Limits


@attrs.frozen(kw_only=True)
class HttpOptions(Limits):
    """Limits of a REST server, beside those that every server has.

    Times are in seconds, sizes in bytes. What is over a limit is refused, or its connection closed,
    without hurting the others.
    """

    max_bodies: int = 2_147_483_648
    """All requests that are being received or worked on, together, `max_message_size` at
    least. When they are too many the slowest loses its connection."""
    max_answers: int = 2_147_483_648
    """All answers on their way, together. A pull that would be one too many is refused (503)."""
    min_body_rate: float = 4096.0
    """Bytes a second that the slowest honest link brings. A body may bring less, or nothing, for
    `request_timeout`."""
    write_timeout: float = 30.0
    """How long a client may take to accept the next 64 KiB of its answer."""
    keep_alive: float = 60.0
    """How long a connection may wait without a request."""
    max_connections_per_address: int | None = None
    """Connections from one IP address; None does not limit them. Behind a proxy all come from
    one."""

    @property
    def room(self) -> int:
        """Bytes that requests have together: always enough for the largest one."""
        return max(self.max_bodies, self.max_message_size + self.max_header_size + 65_536)
