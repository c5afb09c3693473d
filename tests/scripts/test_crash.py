"""What scripts/crash takes for a fault."""

from __future__ import annotations

import time

import pytest
from crashing.record import UNCERTAIN, Given, Life, Record


@pytest.fixture
def record() -> Record:
    return Record(asked={"t": 1})


@pytest.fixture
def life() -> Life:
    return Life({"driver": "127.0.0.1:1"})


def test_a_task_that_is_answered_once_is_as_it_should_be(record: Record, life: Life) -> None:
    record.hand("t", 1)
    record.hand("t", 1)
    record.store("t", "a", 1)
    record.give("t", "a", life)
    record.end()
    record.close()
    assert record.faults == []
    assert "1 tasks handed to their node again; 0 faults" in str(record)


def test_what_is_acknowledged_must_not_be_lost(record: Record) -> None:
    record.store("u", "a", 1)
    record.end()
    record.close()
    assert record.faults == ["t is lost", "the acknowledged answer to u is lost"]


def test_what_is_answered_must_not_be_handed_out_again(record: Record) -> None:
    record.store("t", "a", 1)
    record.hand("t", 1)
    record.hand("t", 2)
    assert ["another node" in fault for fault in record.faults] == [False, True, False]
    assert ["handed out again" in fault for fault in record.faults] == [True, False, True]


def test_an_answer_is_refused_only_if_it_was_heard_before(record: Record) -> None:
    record.store("t", None, 2)
    assert record.faults == []
    record.store("t", None, 1)
    assert record.faults == ["the answer to t was not taken"]


def test_a_driver_gets_the_answer_that_was_acknowledged(record: Record, life: Life) -> None:
    record.store("t", "a", 1)
    record.give("t", "b", life)
    assert record.faults == ["the answer to t is not the one that was acknowledged"]


@pytest.mark.parametrize(
    ("left", "answer_id", "fault"),
    [
        (UNCERTAIN - 1, "a", None),
        (UNCERTAIN - 1, "b", "t was answered twice, and not by the same answer"),
        (UNCERTAIN + 1, "a", "t was answered twice"),
        (None, "a", "t was answered twice"),
    ],
)
def test_only_what_left_just_before_a_kill_may_come_again(
    record: Record, life: Life, left: float | None, answer_id: str, fault: str | None
) -> None:
    now = time.monotonic()
    if left is not None:
        life.killed_at = now
    record.given["t"] = Given("a", life, now - (left or 0))
    record.give_again("t", answer_id, Life({}))
    if fault is None:
        assert record.faults == []
    else:
        [told] = record.faults
        assert told.startswith(fault)


def test_one_life_gives_nothing_twice(record: Record, life: Life) -> None:
    record.give("t", "a", life)
    life.killed_at = time.monotonic()
    record.give_again("t", "a", life)
    [fault] = record.faults
    assert fault.startswith("t was answered twice, ")
