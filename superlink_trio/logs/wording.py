"""Numbers and errors in words, as log lines have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


def counted(number: int, one: str, many: str = "") -> str:
    """Write `1 node`, `2 nodes`; `many` is the plural where it is not `one` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def tallied(reasons: Counter[str]) -> str:
    """Write the three most frequent reasons, most frequent first, and how often each came."""
    return "; ".join(
        reason if count == 1 else f"{reason} ({counted(count, 'time')})"
        for reason, count in reasons.most_common(3)
    )


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
