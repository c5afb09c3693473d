"""What every server bears from its clients, whatever it speaks."""

from __future__ import annotations

from functools import partial
from typing import Self

import attrs
from attrs import field

from superlink_trio.config.kinds import COUNT, MOST, SECONDS, SIZE, to_seconds, within
from superlink_trio.config.options import Apis, Section, option

_limit = partial(option, Section.LIMITS, Apis.BOTH)


@attrs.frozen(kw_only=True)
class Limits:
    """The limits that a config and the servers share. Times are in seconds, sizes in bytes."""

    grace: float = field(
        default=10.0,
        converter=to_seconds,
        metadata=option(
            *(Section.GENERAL, Apis.BOTH, SECONDS),
            "how long calls in flight, or apps of simulated nodes, may go on when it is to stop",
        ),
    )
    max_message_size: int = field(
        default=512 * 1024**2,
        metadata=_limit(
            within(SIZE, 64 * 1024, MOST, "number of bytes"),
            "the largest message, on every port and both ways",
        ),
    )
    """Flower's clients have this default too."""
    max_header_size: int = field(
        default=16 * 1024,
        metadata=_limit(
            within(SIZE, 1024, MOST, "number of bytes"), "the largest header of a call"
        ),
    )
    """All header fields together; over REST the first line as well."""
    request_timeout: float = field(
        default=20.0,
        converter=to_seconds,
        metadata=_limit(
            within(SECONDS, 0.1, 86_400.0, "number of seconds"),
            "how long a handshake or the head of a request may take; over REST its body too, "
            "beside its time at 4 KiB/s",
        ),
    )
    """Should there be too many calls, one that has been arriving for longer gives way."""
    max_connections: int = field(
        default=16_384,
        metadata=_limit(within(COUNT, 1, MOST, "number of connections"), "connections to one API"),
    )
    """Fewer where the process may not open as many files."""
    max_calls: int = field(
        default=32_768,
        metadata=_limit(
            within(COUNT, 1, 2**30, "number of calls"),
            "calls under way on one API; held ones are answered to make room",
            reloads=True,
        ),
    )
    """Held ones included; see `CallLimit`."""

    @classmethod
    def of(cls, limits: Limits, **others: float) -> Self:
        """Take what all have from `limits`, except for `others`."""
        shared = {each.name: getattr(limits, each.name) for each in attrs.fields(Limits)}
        return cls(**shared | others)
