"""A secret that this SuperLink shares with programs of its operator."""

from __future__ import annotations

from pathlib import Path

import attrs

from superlink_trio.credentials.files import FileFault, read


@attrs.define(eq=False)
class SharedSecret:
    """What is in a file, byte by byte: a line break at its end is part of it, as in Flower."""

    source: Path
    value: bytes = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.reload()

    def reload(self) -> None:
        """Read the file again. Raises FileFault; the secret stays as it was then."""
        value = read(self.source, private=True)
        if not value:
            raise FileFault(
                self.source, f"is empty: `openssl rand -hex 32 > {self.source}` makes a secret"
            )
        self.value = value
