"""What several processes count and see, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import attrs

from superlink_trio.admin.figures import Figures, Seen
from superlink_trio.admin.flower import FlowerSeen
from superlink_trio.admin.rates import STEPS, Recent, Step
from superlink_trio.admin.tally import CALL_BOUNDS, LAG_BOUNDS, Durations, MethodTally
from superlink_trio.fleet import NodeView, Work
from superlink_trio.rounds import RoundView
from superlink_trio.rounds.rounds import Missing
from superlink_trio.state.interface import Work as StoreWork
from superlink_trio.state.messages import MessagesCensus
from superlink_trio.wire.messages import NodeRecord, RunRecord, RunStatus

PULL = ("flwr.proto.Fleet", "PullTaskIns")


def durations(bounds: tuple[float, ...], *seconds: float) -> Durations:
    noted = Durations(bounds)
    for each in seconds:
        noted.note(each)
    return noted


def figures(seconds: float, *, held: int) -> Figures:
    tally = MethodTally(
        in_progress=held,
        received=10,
        sent=100,
        ended={"OK": durations(CALL_BOUNDS, seconds)},
        refused={"max_calls": 1},
    )
    return Figures(
        methods={PULL: tally},
        held={"flwr.proto.Fleet": held},
        lag=durations(LAG_BOUNDS, 0.002),
        work=StoreWork(commits=5, steps=6, sweeps=1),
        stored_limit=1000,
    )


def test_what_adds_up_is_added_up() -> None:
    both = figures(0.2, held=2) + figures(3.0, held=1) + Figures()
    tally = both.methods[PULL]
    assert (tally.in_progress, tally.received, tally.sent) == (3, 20, 200)
    assert tally.ended["OK"].counts == durations(CALL_BOUNDS, 0.2, 3.0).counts
    assert tally.ended["OK"].sum == 3.2
    assert tally.refused == {"max_calls": 2}
    assert both.held == {"flwr.proto.Fleet": 3}
    assert sum(both.lag.counts) == 2
    assert both.work == StoreWork(commits=10, steps=12, sweeps=2)
    assert both.stored_limit == 1000, "all have the same"


def test_what_is_in_the_database_counts_once() -> None:
    census = MessagesCensus(nodes=3, nodes_online=2, runs={RunStatus.RUNNING: 1})
    both = Figures() + Figures(flower=census) + Figures(flower=census)
    assert both.flower == census


def test_of_a_process_that_has_ended_only_what_grows_is_left() -> None:
    ended = figures(0.2, held=2).once_ended()
    assert ended.held == {}
    assert ended.stored_limit is None
    assert ended.methods[PULL].in_progress == 0
    assert ended.methods[PULL].received == 10
    assert ended.work == StoreWork(commits=5, steps=6, sweeps=1)


def node(node_id: int, heard: float, *, works: bool = False) -> NodeView:
    work = Work(id="t", run_id=1, group_id="1", kind="train", since=heard) if works else None
    return NodeView(
        node_id=node_id, heard=heard, online_until=heard, online=True, work=work, works=int(works)
    )


def a_round(began: float, group_id: str = "1") -> RoundView:
    return RoundView(
        run_id=1,
        group_id=group_id,
        kind="train",
        began=began,
        ended=None,
        asked=1,
        answered=0,
        errors=0,
        missing=1,
        waiting_for=(),
    )


def test_nodes_and_rounds_are_those_of_all() -> None:
    one = Seen(nodes=[node(1, 10.0, works=True), node(2, 9.0)], rounds=[a_round(3.0, "2")])
    other = Seen(nodes=[node(3, 8.0, works=True), node(1, 11.0)], rounds=[a_round(2.0)])
    together = Seen.of([one, other])
    # Heard of by one, given work by the other.
    shown = [(each.node_id, each.heard, each.works) for each in together.nodes]
    assert shown == [(1, 11.0, 1), (3, 8.0, 1), (2, 9.0, 0)]
    assert [each.began for each in together.rounds] == [2.0, 3.0]
    assert Seen.of([]).nodes == []
    assert Seen.of([one, other]).flower is None


def flower(*views: NodeView, rounds: Sequence[RoundView] = (), known: int = 3) -> FlowerSeen:
    records = [
        NodeRecord(node_id=number, public_key=b"", registered_at=0.0, online_until=99.0)
        for number in range(1, known + 1)
    ]
    run = RunRecord(
        run_id=1,
        task_id=1,
        series_id=1,
        fab_id="me/app",
        fab_version="1",
        fab_hash="",
        pending_at=1,
    )
    works = sum(view.works for view in views)
    return FlowerSeen(
        census=MessagesCensus(nodes=known, nodes_online=known, runs={RunStatus.RUNNING: 1}),
        now=20.0,
        nodes=records,
        views=views,
        runs=[run],
        rounds=rounds,
        under_way=Counter({(1, "1", "train"): works}),
    )


def test_nodes_and_runs_of_todays_flower_are_shown_once() -> None:
    one = flower(node(1, 10.0, works=True), rounds=[attrs.evolve(a_round(3.0), asked=2, missing=2)])
    other = flower(node(1, 11.0), node(3, 12.0, works=True), rounds=[a_round(2.0)])
    together = Seen.of([Seen(flower=one), Seen(flower=other), Seen()]).flower
    assert together is not None
    document = together.document()
    assert (document["known"], document["online"], document["runs"]) == (3, 3, {"running": 1})
    nodes = [(each["node_id"], each["heard"], each["messages"]) for each in document["shown_nodes"]]
    assert nodes == [("3", 12.0, 1), ("1", 11.0, 1), ("2", None, 0)]
    [run] = document["shown_runs"]
    counts = [run["round"][name] for name in ("asked", "missing", "under_way", "waiting")]
    assert counts == [3, 3, 2, 1]


def test_a_round_of_which_each_has_a_part_is_one() -> None:
    ended = attrs.evolve(a_round(1.0), ended=4.0, answered=1, errors=1, missing=0)
    waiting = attrs.evolve(a_round(2.0), waiting_for=[Missing(8, 2.0)])
    [both] = Seen.of([Seen(rounds=[waiting]), Seen(rounds=[ended])]).rounds
    assert (both.began, both.ended, both.asked) == (1.0, None, 2)
    assert (both.answered, both.errors, both.missing) == (1, 1, 1)
    assert [each.node_id for each in both.waiting_for] == [8]
    again = attrs.evolve(ended, began=10.0, ended=11.0)
    rounds = Seen.of([Seen(rounds=[ended, again])]).rounds
    assert [each.began for each in rounds] == [1.0, 10.0], "another one of the same name"


def test_rates_of_several_are_those_of_all_their_calls() -> None:
    def recent(calls: int, latency: int) -> Recent:
        steps = [Step() for _ in range(STEPS - 1)]
        return Recent(1, [*steps, Step(calls=calls, latencies=Counter({latency: calls}))])

    view = Recent.of([recent(99, 8), recent(1, 20)]).view()
    assert view["under_way"] == 2
    assert view["calls"] == 10, "100 within ten seconds"
    assert view["median"] == 4
    assert view["p99"] == 4
    assert len(view["series"]["calls"]) == STEPS
