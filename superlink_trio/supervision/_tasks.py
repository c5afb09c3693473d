"""The tasks of a Trio run as text: who is inside whom, and where each waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import CodeType
from typing import TypeAlias

import attrs
import trio

# Of a task's frames those that say most: its own, closest to where it waits.
_FRAMES = 3

# Whose frames say how it waits, and not for what.
_LIBRARIES = frozenset({"contextlib", "outcome", "trio"})

_Place: TypeAlias = tuple[str, CodeType, int]
"""A module, code of it, and a line."""


@attrs.frozen(cache_hash=True)
class _Shape:
    """What a task looks like: equal for two that wait at the same place, with equal tasks inside.

    Only what is written down becomes text: of thousands of equal tasks one.
    """

    name: str
    places: tuple[_Place, ...]
    waits: CodeType | None
    inside: tuple[tuple[_Shape, int], ...]

    def __str__(self) -> str:
        places = " → ".join(
            f"{module}.{code.co_qualname}:{line}" for module, code, line in self.places
        )
        waits = "" if self.waits is None else f" ({self.waits.co_qualname})"
        return f"{self.name}: {places}{waits}"


def task_tree() -> str:
    """Describe every task of this Trio run, a line each; equal siblings share one.

    Takes some microseconds for each task, during which none of them goes on.
    """
    root = trio.lowlevel.current_root_task()
    assert root is not None, "who calls this is inside of one"
    return "".join(f"{line}\n" for line in _lines(_shape(root), 1, "", ""))


def _shape(task: trio.lowlevel.Task) -> _Shape:
    own: list[_Place] = []
    below: list[_Place] = []
    for frame, line in task.iter_await_frames():
        module = frame.f_globals.get("__name__", "?")
        place = module, frame.f_code, line
        if module.partition(".")[0] in _LIBRARIES:
            below.append(place)
        else:
            own.append(place)
            below.clear()
    inside = Counter(
        _shape(child) for nursery in task.child_nurseries for child in nursery.child_tasks
    )
    in_order = sorted(inside.items(), key=lambda each: (each[0].name, str(each[0])))
    # What its innermost frame called; a task of a library has nothing but frames of libraries.
    waits = below[0][1] if own and below else None
    return _Shape(task.name, tuple((own or below)[-_FRAMES:]), waits, tuple(in_order))


def _lines(shape: _Shape, count: int, first: str, rest: str) -> Iterator[str]:
    yield f"{first}{shape}" + (f"  [{count:,} tasks like this one]" if count > 1 else "")
    for number, (child, times) in enumerate(shape.inside, start=1):
        last = number == len(shape.inside)
        yield from _lines(
            child,
            times,
            rest + ("└── " if last else "├── "),
            rest + ("    " if last else "│   "),
        )
