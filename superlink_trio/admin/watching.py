"""All that watches a SuperLink while it runs, whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs

from superlink_trio.admin.history import History
from superlink_trio.admin.rates import Rates
from superlink_trio.admin.tally import CallTally
from superlink_trio.admin.traces import Traces
from superlink_trio.config import Address
from superlink_trio.rpc import WHOLE, CallLog, CallObserver, Health
from superlink_trio.supervision import Event, EventKind


@attrs.frozen(kw_only=True)
class Watching:
    """Sees every event of the tree and every call."""

    services: Mapping[str, str]
    """What health checks may ask for by name, each with its path in the tree."""
    counts: bool
    """Whether anybody asks for figures: calls are only counted then."""
    traces: Traces | None
    history: History = attrs.field(factory=History)
    calls: CallTally = attrs.field(factory=CallTally)
    rates: Rates = attrs.field(factory=Rates)
    health: Health = attrs.field()

    @health.default
    def _unhealthy_as_yet(self) -> Health:
        return Health(self.services)

    def note(self, event: Event) -> None:
        """Take note of a step of the tree."""
        self.history.note(event)
        self.health.note(WHOLE, serving=not self.history.faults())
        for service, path in self.services.items():
            if path == event.path:
                self.health.note(service, serving=event.kind is EventKind.READY)

    def observers(
        self, system: str, address: Callable[[], Address | None]
    ) -> Sequence[CallObserver]:
        """Give who watches the calls of one API; `system` names what carries them."""
        watching: list[CallObserver] = [CallLog()]
        if self.counts:
            watching += (self.calls, self.rates)
        if self.traces is not None:
            watching.append(self.traces.observer(system, address))
        return watching
