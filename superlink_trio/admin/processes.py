"""What processes use: memory, processor time, files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


@attrs.frozen(eq=False)
class Processes(Collector):
    """The usual figures of this process; those of its workers have their number as a label."""

    workers: Mapping[int, int]
    """Process ids, by the numbers of workers."""

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        families = {family.name: family for family in _figures("self")}
        for number, pid in self.workers.items():
            for theirs in _figures(pid):
                if (family := families.get(theirs.name)) is not None:
                    for sample in theirs.samples:
                        family.add_sample(sample.name, {"worker": str(number)}, sample.value)
        yield from families.values()


def _figures(pid: int | str) -> Iterator[Metric]:
    # Nothing comes of a process that has ended.
    yield from ProcessCollector(pid=lambda: pid, registry=None).collect()
