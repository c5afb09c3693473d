"""Where things are: what is kept, and where APIs listen when nobody says where."""

from __future__ import annotations

import attrs

from superlink_trio.config.address import Address

MEMORY = ":flwr-in-memory-state:"
"""The database name that means: keep everything in this process's memory."""


@attrs.frozen(kw_only=True)
class Place:
    """Where one API is to listen: everywhere if it is secured, else on loopback."""

    api: str
    """What people call it."""
    field: str
    """The field of `SuperLinkConfig` that says where."""
    given: Address | None
    """What it says."""
    port: int
    """The port where nothing is given."""
    secured: bool
    """Whether it was said how other machines are to be served: over TLS, or knowingly without."""
    how: str
    """The options that say so."""

    @property
    def address(self) -> Address:
        """Where to listen."""
        return self.given or Address("0.0.0.0" if self.secured else "localhost", self.port)

    @property
    def withdrawn(self) -> bool:
        """Whether it keeps to this machine only because nothing was said."""
        return self.given is None and not self.secured

    @property
    def exposed(self) -> bool:
        """Whether other machines would reach it although nothing was said of how to serve them."""
        return not self.secured and not self.address.loopback
