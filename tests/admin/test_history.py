from __future__ import annotations

import itertools
from typing import Any

from superlink_trio.admin import History
from superlink_trio.supervision import Event, EventKind


def event(kind: EventKind, path: str = "superlink/apis/fleet", **details: Any) -> Event:
    return Event(kind=kind, path=path, time=0, **details)


def history(*events: Event) -> History:
    made = History(clock=itertools.count(1000.0).__next__)
    for each in events:
        made.note(each)
    return made


def test_a_part_is_in_the_state_of_its_last_step() -> None:
    made = history(event(EventKind.STARTING), event(EventKind.READY))
    [(path, part)] = made.parts.items()
    assert (path, part.state, part.since) == ("superlink/apis/fleet", EventKind.READY, 1002.0)
    assert not made.faults()


def test_restarts_are_counted_and_failures_say_why() -> None:
    made = history(
        event(EventKind.STARTING),
        event(EventKind.FAILED, cause=ExceptionGroup("", [OSError("no"), ValueError("never")])),
        event(EventKind.RESTARTING, delay=0.25),
    )
    assert made.parts["superlink/apis/fleet"].restarts == 1
    assert [happening.words for happening in made.latest] == ["", "no; never", "in 0.2 s"]
    assert made.faults() == ["superlink/apis/fleet is restarting"]


def test_only_the_latest_steps_are_remembered() -> None:
    made = history(*(event(EventKind.STARTING, f"part-{number}") for number in range(150)))
    assert len(made.latest) == 100
    assert made.latest[-1].path == "part-149"


def test_nothing_is_known_of_the_parts_of_what_has_ended() -> None:
    paths = ("superlink/worker-1", "superlink/worker-1/state", "superlink/worker-11/state")
    made = history(*(event(EventKind.STARTING, path) for path in paths))
    made.forget("superlink/worker-1")
    assert list(made.parts) == ["superlink/worker-1", "superlink/worker-11/state"]
