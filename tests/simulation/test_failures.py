from __future__ import annotations

import pytest
import trio
from builders import task_ins
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.simulation.backend import Node
from superlink_trio.simulation.failures import Failure, Failures

_NODE = Node(node_id=7, partition_id=2, num_partitions=5)
_KEY = Failure("KeyError in client.py:14", "<class 'KeyError'>", "Traceback: here")


@pytest.fixture
async def failures(nursery: trio.Nursery, mock_clock: MockClock) -> Failures:
    failures = Failures()
    nursery.start_soon(failures.report)
    await wait_all_tasks_blocked()
    return failures


async def _pass(mock_clock: MockClock, seconds: int) -> None:
    for _ in range(seconds):
        mock_clock.jump(1)
        await wait_all_tasks_blocked()


def _count(failures: Failures, *found: Failure | None, run_id: int = 1) -> None:
    for failure in found:
        failures.count(_NODE, task_ins(run_id, 7), failure)


async def test_the_first_of_a_fault_has_everything(
    failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_ins(1, 7, group_id="3")
    failures.count(_NODE, task, _KEY)
    [record] = caplog.records
    names = ("node_id", "partition_id", "run_id", "round", "exception")
    assert [vars(record)[name] for name in names] == [7, 2, 1, "3", "Traceback: here"]


async def test_each_fault_of_a_run_is_told_once(
    failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    other = Failure("OSError in client.py:14", "no")
    _count(failures, _KEY, other, _KEY, None, other)
    _count(failures, _KEY, run_id=2)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


async def test_what_comes_again_is_counted_every_half_minute(
    failures: Failures, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with failures.under_way(task_ins(1, 7)):
        _count(failures, *[_KEY] * 30)
        await _pass(mock_clock, 29)
        assert len(caplog.messages) == 1
        await _pass(mock_clock, 6)
        line = "Run 1: failed the same 29 times more: KeyError in client.py:14 (29 times)"
        assert caplog.messages[1:] == [line]
        await _pass(mock_clock, 60)
        assert len(caplog.messages) == 2, "nothing has come again"


async def test_a_run_is_summed_up_when_it_is_quiet(
    failures: Failures, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    with failures.under_way(task_ins(1, 7)):
        _count(failures, *[_KEY] * 2, None)
        await _pass(mock_clock, 20)
        assert len(caplog.messages) == 1, "a task that takes long is no end"
    await _pass(mock_clock, 20)
    line = "2 of 3 tasks of run 1 failed: KeyError in client.py:14 (2 times)"
    assert caplog.messages[1:] == [line]
    # It was not over.
    _count(failures, None)
    await _pass(mock_clock, 20)
    assert len(caplog.messages) == 2, "nothing more has failed"
    _count(failures, _KEY)
    await _pass(mock_clock, 20)
    line = "3 of 5 tasks of run 1 failed: KeyError in client.py:14 (3 times)"
    assert caplog.messages[2:] == [line]


async def test_runs_without_failures_are_no_news(
    failures: Failures, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    _count(failures, None, None)
    await _pass(mock_clock, 30)
    assert caplog.messages == []


async def test_a_run_of_ever_new_faults_does_not_fill_the_log(
    failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    _count(failures, *(Failure(f"KeyError in made-up:{line}", "no") for line in range(100)))
    assert len(caplog.messages) == 21


async def test_texts_of_strangers_are_cut(
    failures: Failures, caplog: pytest.LogCaptureFixture
) -> None:
    _count(failures, Failure("fault " * 1000, "reason " * 1000, "report " * 10_000))
    [record] = caplog.records
    assert len(record.getMessage()) < 1200
    assert len(vars(record)["exception"]) < 21_000
