"""Numbers, errors and what strangers say in words, as people read them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def counted(number: int, one: str, many: str = "") -> str:
    """Write `1 node`, `2 nodes`; `many` is the plural where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def tallied(reasons: Counter[str]) -> str:
    """Write the three most frequent reasons, most frequent first, and how often each came."""
    return "; ".join(
        reason if count == 1 else f"{reason} ({counted(count, 'time')})"
        for reason, count in reasons.most_common(3)
    )


def sized(number: float) -> str:
    """Write a number of bytes: `512 B`, `3 KiB`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def lasting(seconds: float) -> str:
    """Write a time in its largest unit: `3 s`, `5 min`, `2 h`, `4 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def harmless(line: str) -> str:
    """Spell control characters out: a stranger's words must not drive a terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], line)


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """Give the errors that groups are made of, or the error itself if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    elif error is not None:
        yield error


def described(error: BaseException) -> str:
    """Say what an error says, and what was noted on it, without the number of an errno."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return "; ".join([text or type(error).__name__, *getattr(error, "__notes__", ())])
