"""What operators are shown of a SuperLink of several workers: asked of each, and put together.

What the workers have in common, the store, is asked of the first that answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import attrs
import trio

from superlink_trio.admin import Figures, Seen, Topic
from superlink_trio.state import Census
from superlink_trio.supervision import task_tree
from superlink_trio.workers.place import NotTold

# Seconds that a worker has to answer: a store that hangs keeps it for three.
_PATIENCE = 4.0


class Asked(Protocol):
    """A worker that can be asked."""

    @property
    def number(self) -> int:
        """Which one it is."""

    @property
    def pid(self) -> int | None:
        """The id of its process; None where it has none that is ready."""

    async def ask(self, wish: Topic, patience: float) -> Any:
        """Have something told, within `patience` seconds. Raises NotTold."""


@attrs.define
class Gathered:
    """What workers tell; see `admin.Sources`."""

    places: Sequence[Asked]
    _latest: dict[int, tuple[int | None, Figures]] = attrs.field(factory=dict, init=False)
    """What each worker counted when it was last asked, by its number, and its process then."""
    _ended: Figures = attrs.field(factory=Figures, init=False)
    """What those counted that have ended: sums never shrink by a restart."""

    async def census(self) -> Census | None:
        """Have the first worker that answers count what is stored."""
        for place in self.places:
            with suppress(NotTold):
                census: Census | None = await place.ask(Topic.CENSUS, _PATIENCE)
                return census
        return None

    async def figures(self) -> Figures:
        """Add up what all workers count, and have counted."""
        told = await self._ask_all(Topic.FIGURES)
        parts = []
        for place in self.places:
            pid, before = self._latest.get(place.number, (None, Figures()))
            figures = told.get(place.number)
            if figures is None:
                parts.append(before.once_ended())
                continue
            if pid != place.pid:
                self._ended += before.once_ended()
            self._latest[place.number] = place.pid, figures
            parts.append(figures)
        return sum(parts, self._ended)

    async def seen(self) -> Seen:
        """Put together what all workers see."""
        return Seen.of((await self._ask_all(Topic.SEEN)).values())

    async def tasks(self) -> str:
        """Describe the tasks of this process, and those of each worker."""
        told = await self._ask_all(Topic.TASKS)
        silent = "It does not answer.\n"
        return task_tree() + "".join(
            f"\nworker {place.number}, process {place.pid}\n{told.get(place.number, silent)}"
            for place in self.places
        )

    def workers(self) -> Mapping[int, int]:
        """Give the ids of the processes that serve, by the numbers of workers."""
        return {place.number: place.pid for place in self.places if place.pid is not None}

    async def measure(self) -> None:
        """Nothing is measured here: workers do."""
        await trio.sleep_forever()

    async def _ask_all(self, topic: Topic) -> dict[int, Any]:
        told: dict[int, Any] = {}

        async def ask(place: Asked) -> None:
            with suppress(NotTold):
                told[place.number] = await place.ask(topic, _PATIENCE)

        async with trio.open_nursery() as nursery:
            for place in self.places:
                nursery.start_soon(ask, place)
        return told
