"""What may happen to nodes, runs and messages, without any store."""

from __future__ import annotations

import math

import attrs
import pytest
from peering.parcels import parcel

from superlink_trio.state.interface import Admission
from superlink_trio.state.messages import SERVER, NotPermitted, Wrong, rules
from superlink_trio.state.messages.interface import (
    CLAIM_TIMEOUT,
    MESSAGE_UNAVAILABLE,
    NODE_UNAVAILABLE,
    REPLY_UNAVAILABLE,
    SESSION_TIMEOUT,
    TASK_TIMEOUT,
)
from superlink_trio.state.messages.rules import Asked, Fate, Phase
from superlink_trio.wire.messages import NodeRecord, Outcome, RunRecord, RunStatus

NOW = 1000.0


def node(**details: float) -> NodeRecord:
    return NodeRecord(node_id=7, public_key=b"key", registered_at=1.0, **details)  # type: ignore[arg-type]


def run() -> RunRecord:
    return RunRecord(
        run_id=7,
        task_id=8,
        series_id=9,
        fab_id="me/app",
        fab_version="1",
        fab_hash="h",
        pending_at=1.0,
    )


@pytest.mark.parametrize(
    ("node_of_key", "registered", "unregistered", "readmit", "admission"),
    [
        (7, True, False, False, Admission.KNOWN),
        (8, True, False, True, Admission.FOREIGN),
        (8, False, False, True, Admission.FOREIGN),
        (None, True, False, True, Admission.FOREIGN),
        (None, False, False, False, Admission.UNKNOWN),
        (None, False, True, True, Admission.UNKNOWN),
        (None, False, False, True, Admission.READMITTED),
    ],
)
def test_a_node_is_its_keys(
    node_of_key: int | None,
    registered: bool,
    unregistered: bool,
    readmit: bool,
    admission: Admission,
) -> None:
    assert admission is rules.admit(
        7,
        node_of_key=node_of_key,
        registered=registered,
        unregistered=unregistered,
        readmit=readmit,
    )


@pytest.mark.parametrize("node_id", [0, SERVER])
def test_nobody_is_admitted_as_nobody_or_as_the_server(node_id: int) -> None:
    admission = rules.admit(
        node_id, node_of_key=None, registered=False, unregistered=False, readmit=True
    )
    assert admission is Admission.UNKNOWN


def test_a_heartbeat_prolongs_and_never_shortens() -> None:
    assert rules.activated(node(), 30.0, NOW).online_until == NOW + 60
    before = node(online_until=NOW + 100, heartbeat_interval=50.0, deactivated_at=5.0)
    after = rules.heard_of(before, 10.0, NOW)
    assert (after.online_until, after.heartbeat_interval) == (NOW + 100, 10.0)
    assert after.deactivated_at is None
    assert rules.heard_of(after, None, NOW + 90).online_until == NOW + 110
    assert rules.heard_of(after, math.nan, NOW) == after
    assert rules.deactivated(after, NOW).online_until == 0.0


@pytest.mark.parametrize(
    "details",
    [
        {"online_until": 50.0},
        {"deactivated_at": 50.0},
        {"registered_at": 50.0},
    ],
)
def test_a_node_that_registered_itself_gives_way_in_time(details: dict[str, float]) -> None:
    known = attrs.evolve(node(), registered_itself=True, **details)  # type: ignore[arg-type]
    assert rules.gives_way(known, since=50.0)
    assert not rules.gives_way(known, since=49.0)
    assert not rules.gives_way(attrs.evolve(known, registered_itself=False), since=50.0)


def test_a_run_begins_once_and_after_it_was_claimed() -> None:
    claimed = rules.claimed(run(), NOW)
    begun = rules.begun(claimed, NOW + 1)
    assert (begun.starting_at, begun.running_at) == (NOW, NOW + 1)
    ended = rules.finished(begun, Outcome.FAILED, "why", NOW + 2)
    for other in (run(), begun, ended, rules.unclaimed(claimed)):
        with pytest.raises(NotPermitted, match=other.status.value):
            rules.begun(other, NOW)


def test_a_process_is_silent_after_a_while() -> None:
    for status, patience in (
        (RunStatus.STARTING, CLAIM_TIMEOUT),
        (RunStatus.RUNNING, TASK_TIMEOUT),
    ):
        assert not rules.is_silent(status, NOW, NOW + patience)
        assert rules.is_silent(status, NOW, NOW + patience + 1)


def test_what_is_logged_at_one_moment_has_different_times() -> None:
    assert rules.next_moment(0.0, NOW) == NOW
    assert NOW < rules.next_moment(NOW, NOW) < NOW + 0.001
    assert rules.next_moment(NOW + 5, NOW) > NOW + 5


def test_a_message_ends_with_its_root() -> None:
    sent = parcel(1, to=7, parts=(b"a", b"b", b"a"))
    assert {*rules.parts_of(sent.envelope), sent.message_id} == set(sent.objects)
    assert len(rules.parts_of(sent.envelope)) == 2
    sent.envelope.tree.children[0].object_id = "no hash"
    with pytest.raises(Wrong, match="no SHA-256"):
        rules.parts_of(sent.envelope)


def test_time_begins_when_a_message_was_made_or_came() -> None:
    message = parcel(1, to=7, created_at=NOW, ttl=10.0).envelope.message
    assert rules.expires_at(message, NOW + 3) == NOW + 10
    assert rules.expires_at(message, NOW - 3) == NOW + 7
    message.metadata.ttl = math.nan
    assert rules.expires_at(message, NOW) == NOW


def test_which_error_stands_in() -> None:
    asked = Asked(1, 7, expires_at=NOW + 10, replied=False)
    assert rules.code_of(None, math.inf, NOW) == MESSAGE_UNAVAILABLE
    assert rules.code_of(asked, NOW + 1, NOW) is None
    assert rules.code_of(asked, NOW, NOW) == NODE_UNAVAILABLE
    assert rules.code_of(asked, NOW, NOW + 10) == REPLY_UNAVAILABLE


def test_an_instruction_is_looked_at_again_when_an_error_may_stand_in() -> None:
    asked = {
        "a": Asked(1, 7, expires_at=NOW + 10, replied=False),
        "b": Asked(1, 8, expires_at=NOW + 90, replied=False),
        "c": Asked(1, 7, expires_at=NOW + 1, replied=True),
    }
    until = {7: NOW + 60, 8: NOW + 5}
    survey = rules.survey(["a", "b", "c", "unknown"], asked, until.__getitem__, NOW)
    assert set(survey.settled) == {"c", "unknown"}
    assert survey.changes_at == NOW + 5


def test_a_reply_is_its_nodes_and_the_first() -> None:
    asked = Asked(1, 7, expires_at=NOW, replied=False)
    assert rules.takes_reply(asked, 1, 7)
    assert not rules.takes_reply(asked, 2, 7)
    assert not rules.takes_reply(asked, 1, 8)
    assert not rules.takes_reply(asked._replace(replied=True), 1, 7)


@pytest.mark.parametrize(
    ("phase", "is_reply", "replied", "age", "silence", "fate"),
    [
        (Phase.ARRIVING, False, False, -1, SESSION_TIMEOUT, Fate.KEEP),
        (Phase.ARRIVING, True, False, -1, SESSION_TIMEOUT + 1, Fate.DELETE),
        (Phase.QUEUED, False, False, 0, 9999, Fate.KEEP),
        (Phase.QUEUED, False, False, 1, 9999, Fate.RELEASE),
        (Phase.HANDED_OUT, False, False, SESSION_TIMEOUT + 1, 9999, Fate.DELETE),
        (Phase.DELIVERED, False, True, SESSION_TIMEOUT + 1, 9999, Fate.RELEASE),
        (Phase.QUEUED, True, False, 9999, 9999, Fate.KEEP),
    ],
)
def test_what_becomes_of_a_message_with_time(
    phase: Phase, is_reply: bool, replied: bool, age: float, silence: float, fate: Fate
) -> None:
    assert fate is rules.fate(
        phase,
        is_reply=is_reply,
        replied=replied,
        expires_at=NOW - age,
        heard_at=NOW - silence,
        now=NOW,
    )
