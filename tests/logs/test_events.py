from __future__ import annotations

import logging
from typing import Any

import pytest

from superlink_trio.logs.events import EventLog
from superlink_trio.supervision import Event, EventKind


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Any:
    """Give what is logged of steps at a level and above, the level's name in front."""

    def tell(*steps: tuple[EventKind, str, BaseException | None], level: int) -> list[str]:
        caplog.set_level(level, "superlink_trio")
        log = EventLog(frozenset({"app", "app/apis"}))
        for kind, path, cause in steps:
            log(Event(kind=kind, path=path, time=0.0, cause=cause, delay=0.1))
        return [f"{record.levelname} {record.getMessage()}" for record in caplog.records]

    return tell


NO_PORT = OSError(98, "Address already in use")
NO_PORT.add_note("needed by the Fleet API")
DEEP = ExceptionGroup("a nursery", [ExceptionGroup("a nursery", [NO_PORT])])
STARTED = [(EventKind.READY, path, None) for path in ("app/apis/fleet", "app/apis", "app")]


def test_what_fails_at_the_start_is_left_to_who_started_it(told: Any) -> None:
    steps = [(EventKind.FAILED, path, DEEP) for path in ("app/apis/fleet", "app/apis", "app")]
    assert told(*steps, level=logging.INFO) == []
    assert told(*steps, level=logging.DEBUG) == [
        f"DEBUG {path} failed: Address already in use; needed by the Fleet API"
        for path in ("app/apis/fleet", "app/apis", "app")
    ]


def test_what_fails_later_is_told_once_by_its_causes(told: Any) -> None:
    steps = [(EventKind.FAILED, path, DEEP) for path in ("app/apis/fleet", "app/apis", "app")]
    assert told(*STARTED, *steps, level=logging.INFO) == [
        "ERROR app/apis/fleet failed: Address already in use; needed by the Fleet API"
    ]


def test_a_restart_that_fails_is_told_like_the_first_failure(told: Any) -> None:
    steps = [
        (EventKind.FAILED, "app/apis/fleet", RuntimeError("broke down")),
        (EventKind.RESTARTING, "app/apis/fleet", None),
        (EventKind.STARTING, "app/apis/fleet", None),
        (EventKind.FAILED, "app/apis/fleet", RuntimeError()),
    ]
    assert told(*STARTED, *steps, level=logging.INFO) == [
        "ERROR app/apis/fleet failed: broke down",
        "WARNING app/apis/fleet restarts in 0.1 s",
        "ERROR app/apis/fleet failed: RuntimeError",
    ]
