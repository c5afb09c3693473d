from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from superlink_trio.admin import Figures, Seen, Topic
from superlink_trio.admin.history import History
from superlink_trio.admin.metrics import Metrics
from superlink_trio.state.interface import Work
from superlink_trio.workers.gathering import Gathered
from superlink_trio.workers.place import NotTold


@attrs.define
class Told:
    """A worker that has answers, or is away."""

    number: int
    pid: int | None
    answers: Mapping[Topic, Any]

    async def ask(self, wish: Topic, patience: float) -> Any:
        if self.pid is None:
            raise NotTold(f"worker {self.number} is not ready")
        return self.answers[wish]


def counted(commits: int, held: int) -> Mapping[Topic, Any]:
    work = Work(commits=commits, steps=commits, sweeps=0)
    return {Topic.FIGURES: Figures(work=work, held={"a": held}), Topic.SEEN: Seen()}


async def sums(gathered: Gathered) -> tuple[int, int]:
    figures = await gathered.figures()
    assert figures.work is not None
    return figures.work.commits, figures.held["a"]


async def test_sums_never_shrink_when_a_worker_is_replaced() -> None:
    first, second = Told(1, 11, counted(100, 1)), Told(2, 12, counted(200, 2))
    gathered = Gathered([first, second])
    assert await sums(gathered) == (300, 3)
    second.pid = None
    assert await sums(gathered) == (300, 1)
    second.pid, second.answers = 13, counted(5, 1)
    assert await sums(gathered) == (305, 2)
    second.answers = counted(6, 1)
    assert await sums(gathered) == (306, 2)


async def test_what_all_have_in_common_is_asked_of_one_that_answers() -> None:
    away, there = Told(1, None, {}), Told(2, 12, {Topic.CENSUS: "counted", Topic.TASKS: "tasks\n"})
    census: object = await Gathered([away, there]).census()
    assert census == "counted"
    assert await Gathered([away]).census() is None
    told = await Gathered([away, there]).tasks()
    assert told.endswith(
        "\nworker 1, process None\nIt does not answer.\n\nworker 2, process 12\ntasks\n"
    )
    assert Gathered([away, there]).workers() == {2: 12}


async def test_a_scrape_without_any_worker_has_what_there_is() -> None:
    page, _ = await Metrics(History(), Gathered([Told(1, None, {})])).page()
    assert b"superlink_state_available 0.0" in page
    assert b"superlink_stored_limit_bytes" not in page
