from __future__ import annotations

import math
import random
from typing import Any

import pytest

from superlink_trio.supervision import Backoff, Child, Group, Intensity, Strategy


def child(name: str, **options: Any) -> Child:
    async def serve(**options: Any) -> None: ...

    return Child(name=name, serve=serve, **options)


def group(name: str, strategy: Strategy, *children: Child | Group) -> Group:
    return Group(name=name, strategy=strategy, children=children)


class TestNames:
    @pytest.mark.parametrize("name", ["", "a/b", "/"])
    def test_a_name_is_one_part_of_a_path(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"^{name!r} cannot name a child: "):
            child(name)
        with pytest.raises(ValueError, match=f"^{name!r} cannot name a group: "):
            group(name, Strategy.ONE_FOR_ONE)

    def test_siblings_have_different_names(self) -> None:
        inner = group("a", Strategy.ONE_FOR_ONE)
        with pytest.raises(ValueError, match="group 'app' has more than one child named 'a'"):
            group("app", Strategy.ONE_FOR_ONE, child("a"), child("b"), inner)

    def test_cousins_may_share_a_name(self) -> None:
        group("a", Strategy.ONE_FOR_ONE, group("a", Strategy.ONE_FOR_ONE, child("a")))


class TestGrace:
    def test_of_a_group(self) -> None:
        children = child("a", grace=1), child("b", grace=2)
        beside = group("beside", Strategy.ONE_FOR_ONE, *children)
        chain = group("chain", Strategy.REST_FOR_ONE, *children)
        assert beside.grace == 2
        assert chain.grace == 3
        assert group("app", Strategy.REST_FOR_ONE, beside, chain).grace == 5
        assert group("empty", Strategy.ONE_FOR_ONE).grace == 0

    def test_may_have_no_end(self) -> None:
        assert group("app", Strategy.REST_FOR_ONE, child("a", grace=math.inf)).grace == math.inf


@pytest.mark.parametrize(
    "build",
    [
        lambda: child("a", grace=-1),
        lambda: child("a", grace=math.nan),
        lambda: Backoff(initial=-1),
        lambda: Backoff(factor=0.5),
        lambda: Backoff(maximum=-1),
        lambda: Backoff(jitter=1.1),
        lambda: Backoff(jitter=-0.1),
        lambda: Intensity(restarts=-1),
        lambda: Intensity(period=0),
    ],
)
def test_numbers_out_of_range_are_refused(build: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        build()


class TestBackoff:
    def test_grows_up_to_the_maximum(self) -> None:
        backoff = Backoff(initial=1, factor=3, maximum=20, jitter=0)
        delays = [backoff.delay(attempt, random.Random()) for attempt in range(5)]
        assert delays == [1, 3, 9, 20, 20]

    def test_never_overflows(self) -> None:
        assert Backoff(jitter=0).delay(100_000, random.Random()) == 30

    def test_jitter_only_shortens(self) -> None:
        backoff, rng = Backoff(initial=10, jitter=0.5), random.Random(1)
        delays = [backoff.delay(0, rng) for _ in range(1000)]
        assert 5 <= min(delays) < 5.1
        assert 9.9 < max(delays) <= 10

    def test_the_same_source_gives_the_same_delays(self) -> None:
        assert Backoff().delay(0, random.Random(7)) == Backoff().delay(0, random.Random(7))
