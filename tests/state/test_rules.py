"""What may happen, without any store."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from builders import EPOCH, answer_to, task_ins

from superlink_trio.state import (
    Admission,
    Limit,
    LimitReached,
    StateLimits,
    TaskState,
    rules,
)
from superlink_trio.state.interface import (
    COME_BACK,
    LINGER,
    MAX_DELIVERIES,
    MAX_PING_INTERVAL,
    NODE_UNAVAILABLE,
    OUT_OF_TIME,
)
from superlink_trio.state.rules import Asked, Fate, Phase, Question, Reply, Verdict
from superlink_trio.wire.tasks import ANONYMOUS

NODE, OTHER = 7, 8


def test_the_numbers_of_phases_are_those_in_files() -> None:
    assert [f"{phase}" for phase in Phase] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("phase", "answered", "expires_at", "expected"),
    [
        (Phase.QUEUED, False, EPOCH + 1, TaskState.QUEUED),
        (Phase.UNDER_WAY, False, EPOCH + 1, TaskState.UNDER_WAY),
        (Phase.HANDED_OVER, False, EPOCH + 1, TaskState.HANDED_OVER),
        (Phase.UNDER_WAY, False, EPOCH, TaskState.OUT_OF_TIME),
        (Phase.CLOSED, False, EPOCH, TaskState.OUT_OF_TIME),
        (Phase.CLOSED, True, EPOCH, TaskState.ANSWERED),
    ],
)
def test_the_state_of_a_task(
    phase: Phase, answered: bool, expires_at: float, expected: TaskState
) -> None:
    found = rules.task_state(phase, answered=answered, expires_at=expires_at, now=EPOCH)
    assert found is expected


@pytest.mark.parametrize(
    ("said", "counts"),
    [(-1.0, 0.0), (0.0, 0.0), (30.0, 30.0), (1e300, MAX_PING_INTERVAL), (math.nan, 0.0)],
)
def test_a_ping_keeps_a_node_online_within_bounds(said: float, counts: float) -> None:
    assert rules.bounded_interval(said) == counts


def test_an_attended_node_is_online_whatever_was_stored() -> None:
    assert rules.online_until(5.0, attended=False, now=9.0) == 5.0
    assert rules.online_until(5.0, attended=True, now=9.0) == 9.0 + COME_BACK
    assert rules.online_until(1e9, attended=True, now=9.0) == 9.0 + COME_BACK


@pytest.mark.parametrize(
    ("node_id", "registered", "deleted", "readmit", "expected"),
    [
        (NODE, True, False, False, Admission.KNOWN),
        (NODE, False, False, True, Admission.READMITTED),
        (NODE, False, False, False, Admission.UNKNOWN),
        (NODE, False, True, True, Admission.UNKNOWN),
        (ANONYMOUS, False, False, True, Admission.UNKNOWN),
    ],
)
def test_admission(
    node_id: int, registered: bool, deleted: bool, readmit: bool, expected: Admission
) -> None:
    found = rules.admit(node_id, registered=registered, deleted=deleted, readmit=readmit)
    assert found is expected


@pytest.mark.parametrize(
    ("node_of_key", "has_key", "deleted", "readmit", "expected"),
    [
        (NODE, True, False, False, Admission.KNOWN),
        (OTHER, False, False, True, Admission.FOREIGN),
        (None, True, False, True, Admission.FOREIGN),
        (None, False, False, True, Admission.READMITTED),
        (None, False, True, True, Admission.UNKNOWN),
        (None, False, False, False, Admission.UNKNOWN),
    ],
)
def test_binding(
    node_of_key: int | None, has_key: bool, deleted: bool, readmit: bool, expected: Admission
) -> None:
    found = rules.bind(
        NODE, node_of_key=node_of_key, has_key=has_key, deleted=deleted, readmit=readmit
    )
    assert found is expected


def test_no_key_gets_the_anonymous_node() -> None:
    found = rules.bind(ANONYMOUS, node_of_key=None, has_key=False, deleted=False, readmit=True)
    assert found is Admission.UNKNOWN


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("under_way", [False, True])
@pytest.mark.parametrize("expires_at", [9.0, 10.0, 11.0])
def test_only_a_queued_task_within_its_time_may_be_taken(
    phase: Phase, under_way: bool, expires_at: float
) -> None:
    may = rules.may_be_taken(phase, answer_under_way=under_way, expires_at=expires_at, now=10.0)
    assert may is (phase is Phase.QUEUED and not under_way and expires_at == 11.0)


@pytest.mark.parametrize(
    ("sent_over", "asked_over", "deliveries", "lost"),
    [
        ("c1", "c1", 1, False),
        ("c1", "c2", 1, True),
        ("c1", "", 1, True),
        ("", "", 1, True),
        ("c1", "c2", MAX_DELIVERIES - 1, True),
        ("c1", "c2", MAX_DELIVERIES, False),
    ],
)
def test_what_a_node_never_received_is_queued_again_a_few_times(
    sent_over: str, asked_over: str, deliveries: int, lost: bool
) -> None:
    found = rules.is_lost(deliveries=deliveries, sent_over=sent_over, asked_over=asked_over)
    assert found is lost


@pytest.mark.parametrize(
    ("now", "fate"),
    [(9.9, Fate.KEEP), (10.0, Fate.CLOSE), (9.9 + LINGER, Fate.CLOSE), (10.0 + LINGER, Fate.DROP)],
)
def test_a_task_out_of_time_lingers_and_goes(now: float, fate: Fate) -> None:
    assert rules.fate(expires_at=10.0, answer_under_way=False, now=now) is fate
    assert rules.fate(expires_at=10.0, answer_under_way=True, now=now) is Fate.KEEP


TASK = task_ins(1, NODE)
EXPIRES_AT = TASK.pushed_at + TASK.ttl


def asked(answer_id: str | None = None, *, node_id: int = NODE, run_id: int = 1) -> Asked:
    return Asked(node_id=node_id, run_id=run_id, expires_at=EXPIRES_AT, answer_id=answer_id)


@pytest.mark.parametrize(
    ("found", "run_exists", "now", "verdict"),
    [
        (asked(), True, EPOCH, Verdict.STORE),
        (asked(), False, EPOCH, Verdict.NO_SUCH_RUN),
        (None, True, EPOCH, Verdict.NOT_WAITED_FOR),
        (asked(), True, EXPIRES_AT, Verdict.NOT_WAITED_FOR),
        (asked("first"), True, EPOCH, Verdict.REPEATED),
        (asked("first"), True, EXPIRES_AT, Verdict.REPEATED),
        (asked(node_id=OTHER), True, EPOCH, Verdict.NOT_ITS_TASK),
        (asked(run_id=2), True, EPOCH, Verdict.NOT_ITS_TASK),
        (asked("first", node_id=OTHER), True, EPOCH, Verdict.NOT_ITS_TASK),
    ],
)
def test_what_becomes_of_an_answer(
    found: Asked | None, run_exists: bool, now: float, verdict: Verdict
) -> None:
    assert rules.judge(answer_to(TASK), found, run_exists=run_exists, now=now) is verdict


def test_a_refusal_says_what_is_wrong_with_which_task() -> None:
    answer = answer_to(TASK)
    words = {
        verdict: str(verdict.refusal(answer, "gone"))
        for verdict in (Verdict.NO_SUCH_RUN, Verdict.NOT_WAITED_FOR, Verdict.NOT_ITS_TASK)
    }
    assert words == {
        Verdict.NO_SUCH_RUN: "run 1 is not known",
        Verdict.NOT_WAITED_FOR: f"task {TASK.task_id} is not waited for: gone",
        Verdict.NOT_ITS_TASK: f"task {TASK.task_id} was not for node {NODE}",
    }


@pytest.mark.parametrize(
    ("answered", "producer", "taken"),
    [
        (False, None, True),
        (False, NODE, True),
        (False, OTHER, False),
        (False, ANONYMOUS, False),
        (True, NODE, False),
    ],
)
def test_an_error_is_stored_for_whom_it_concerns(
    answered: bool, producer: int | None, taken: bool
) -> None:
    assert rules.takes_error(node_id=NODE, answered=answered, producer=producer) is taken


def question(
    *,
    expires_at: float = 20.0,
    answer_size: int | None = None,
    answer_under_way: bool = False,
    node_until: float = 15.0,
) -> Question:
    return Question(
        expires_at=expires_at,
        answer_size=answer_size,
        answer_under_way=answer_under_way,
        node_until=node_until,
    )


@pytest.mark.parametrize(
    ("asked_for", "reply"),
    [
        (question(), Reply.LATER),
        (question(answer_size=5), Reply.ANSWER),
        (question(answer_size=0, expires_at=9.0), Reply.ANSWER),
        (question(answer_size=5, answer_under_way=True), Reply.UNDER_WAY),
        (question(answer_under_way=True, expires_at=9.0), Reply.UNDER_WAY),
        (question(node_until=10.0), Reply.NODE_UNAVAILABLE),
        (question(expires_at=10.0), Reply.OUT_OF_TIME),
        (question(expires_at=10.0, node_until=10.0), Reply.OUT_OF_TIME),
    ],
)
def test_what_a_driver_is_given(asked_for: Question, reply: Reply) -> None:
    assert asked_for.reply(10.0) is reply


def test_two_replies_are_errors_that_stand_in() -> None:
    assert {reply: reply.error for reply in Reply if reply.error is not None} == {
        Reply.OUT_OF_TIME: OUT_OF_TIME,
        Reply.NODE_UNAVAILABLE: NODE_UNAVAILABLE,
    }


def test_until_when_a_node_may_answer() -> None:
    assert rules.end_of_node(ANONYMOUS, None) == math.inf
    assert rules.end_of_node(NODE, None) == -math.inf
    assert rules.end_of_node(NODE, 15.0) == 15.0


def test_a_survey_tells_what_is_worth_waiting_for() -> None:
    questions = {
        "answered": question(answer_size=5),
        "under way": question(answer_size=5, answer_under_way=True),
        "offline": question(node_until=9.0),
        "later": question(node_until=15.0),
        "later still": question(expires_at=30.0, node_until=math.inf),
    }
    survey = rules.survey([*questions, "unknown"], questions, 10.0)
    assert survey.settled == {"answered": 5, "under way": 0, "offline": 0, "unknown": 0}
    assert survey.changes_at == 15.0
    assert rules.survey([], {}, 10.0).changes_at == math.inf


@pytest.mark.parametrize(
    ("check", "limit", "most"),
    [
        (lambda limits, value, more: limits.check_queue(NODE, value, more), "TASKS_PER_NODE", 10),
        (lambda limits, value, more: limits.check_asked(value, more), "ASKED_SIZE", 50),
        (lambda limits, value, more: limits.check_answer(value, more), "STORED_SIZE", 100),
    ],
)
def test_limits_may_be_filled_and_no_more(
    check: Callable[[StateLimits, int, int], None], limit: str, most: int
) -> None:
    limits = StateLimits(tasks_per_node=10, stored_size=100)
    check(limits, most - 2, 2)
    with pytest.raises(LimitReached) as caught:
        check(limits, most - 2, 3)
    error = caught.value
    assert (error.limit, error.value, error.more, error.most) == (Limit[limit], most - 2, 3, most)
    assert error.node_id == (NODE if limit == "TASKS_PER_NODE" else None)


def test_one_more_node_has_to_find_room() -> None:
    StateLimits(nodes=3).check_node(2)
    with pytest.raises(LimitReached, match="registered nodes: 3 and 1 more are over 3"):
        StateLimits(nodes=3).check_node(3)
