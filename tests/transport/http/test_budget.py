from __future__ import annotations

import math

import attrs
import pytest

from superlink_trio.transport.http.budget import Budget, Full


@attrs.define(eq=False)
class Slow:
    """A sender that has some room."""

    budget: Budget
    held: int
    seconds_left: float
    gone: bool = False

    def __attrs_post_init__(self) -> None:
        self.budget.add(self)
        self.budget.take(self.held)

    def give_way(self) -> None:
        self.gone = True
        self.budget.give_back(self.held)
        self.budget.discard(self)


def test_what_fits_gets_room_and_what_does_not_gets_none() -> None:
    budget = Budget(10)
    budget.take(10)
    with pytest.raises(Full):
        budget.take(1)
    budget.give_back(3)
    budget.take(3)


def test_those_give_way_whose_end_is_farthest_and_no_more_than_needed() -> None:
    budget = Budget(100)
    near, far, never = (Slow(budget, 30, seconds) for seconds in (1, 50, math.inf))
    budget.take(40)
    assert (near.gone, far.gone, never.gone) == (False, False, True)
    budget.take(30)
    assert (near.gone, far.gone) == (False, True)


def test_who_asks_gives_way_itself_if_its_end_is_farthest() -> None:
    budget = Budget(100)
    near, far = Slow(budget, 50, 1), Slow(budget, 50, 2)
    with pytest.raises(Full):
        budget.take(1, far)
    assert (near.gone, far.gone) == (False, False)
    budget.take(1, near)
    assert far.gone


def test_some_more_is_made_free_so_that_not_each_piece_looks_for_it() -> None:
    budget = Budget(25_600)
    senders = [Slow(budget, 10, number) for number in range(2560)]
    budget.take(1)
    assert sum(sender.gone for sender in senders) == 11  # for 1 byte, and 100 at hand
