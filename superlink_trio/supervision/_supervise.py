"""A supervision tree at work.

What was started after a child lives inside its life, so that stopping in reverse is nothing but
leaving nested blocks:

    _serve_group                      the children of one life of a group
    └── _keep                         one child, as many lives as it takes
        └── _live                     one life
            ├── _serve                the service itself, or a _serve_group
            ├── _stop_in_order        the rest first, then the service
            └── rest                  rest-for-one: _keep of the next child
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

import trio

from ._control import Control
from ._events import Event, EventKind
from ._lives import Life, Member, Team, Tree
from ._spec import Group, Restart, Strategy

Rest: TypeAlias = Callable[[trio.Event], Awaitable[None]]
"""What lives inside a life: runs until it has ended, and ends soon after its event is set."""

_RNG = random.Random()


async def supervise(
    group: Group,
    *,
    control: Control,
    observer: Callable[[Event], None],
    rng: random.Random = _RNG,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a tree: start it in order, keep it, stop it in reverse.

    Returns when everything has ended, because `control` asked for it or by itself.

    Arguments:
        group: The root. Nobody stands above it to restart it: its `restart` has to be NEVER.
        control: Stops the tree; `control.stopping` is not set by a tree that ends by itself.
        observer: Called with every event, in order, from inside the Trio run; it must not block.
            One that raises is a bug: the tree stops in order and its error is raised.
        rng: Where the jitter of restarts comes from.
        task_status: `started()` is called when the whole tree is ready. Asked to stop before
            that, the tree returns without it, which `nursery.start` reports as a RuntimeError.

    Raises:
        ExceptionGroup: Everything that failed for good, nested as the tree is; a
            BaseExceptionGroup when a KeyboardInterrupt or SystemExit is among it.
        ValueError: The root asks to be restarted.

    Cancelling this is Trio's plain cancellation: every service at once, without order or grace.
    Inside `shielded_stop` it is a graceful stop instead.
    """
    if group.restart is not Restart.NEVER:
        raise ValueError(f"{group.name!r} is the root: there is no parent to restart it")
    if control.stopping.is_set():
        return
    tree = Tree(control, observer, rng)
    root = Member(tree, group, group.name)

    async def announce(stopping: trio.Event) -> None:
        task_status.started()

    try:
        await _live(Life(root), announce, control.stopping)
    finally:
        if tree.observer_failures:
            failures = [*_failures([root]), *tree.observer_failures]
            raise BaseExceptionGroup(f"the observer of {group.name} failed", failures)
        if root.failure is not None:
            raise root.failure


async def _serve_group(life: Life, group: Group) -> None:
    tree, path = life.member.tree, life.member.path
    team = Team(life, group.intensity)
    members = [Member(tree, child, f"{path}/{child.name}", team) for child in group.children]
    team.members = members
    if group.strategy is Strategy.REST_FOR_ONE:
        for before, member in itertools.pairwise(members):
            member.before = before
    try:
        await _STRATEGIES[group.strategy](team, members, life.stopping)
    finally:
        if failures := _failures(members):
            raise BaseExceptionGroup(f"{path} failed", failures)


async def _rest_for_one(team: Team, members: Sequence[Member], stopping: trio.Event) -> None:
    """Members inside one another: the life of each contains the lives of those after it."""
    if await _asked_to_stop(team, stopping, *members[:1]):
        return
    if not members:
        team.all_started()
        return
    await _keep(team, Life(members[0]), partial(_rest_for_one, team, members[1:]), stopping)


async def _one_for_one(team: Team, members: Sequence[Member], stopping: trio.Event) -> None:
    """Members beside one another, each started when the one before it is ready."""
    async with trio.open_nursery() as nursery:
        for member in members:
            if await _asked_to_stop(team, stopping, member):
                return
            life = Life(member)
            nursery.start_soon(_keep, team, life, _nothing, stopping)
            await life.settled.wait()
        if not await _asked_to_stop(team, stopping):
            team.all_started()


_STRATEGIES: Mapping[Strategy, Callable[[Team, Sequence[Member], trio.Event], Awaitable[None]]] = {
    Strategy.REST_FOR_ONE: _rest_for_one,
    Strategy.ONE_FOR_ONE: _one_for_one,
}


async def _nothing(stopping: trio.Event) -> None:
    """The rest of a member that stands alone."""


async def _keep(team: Team, life: Life, rest: Rest, stopping: trio.Event) -> None:
    """Live again and again, until stopped, ended by itself or failed for good."""
    await _live(life, rest, stopping)
    while life.restart and await _back_off(team, life.member, stopping):
        life = Life(life.member)
        await _live(life, rest, stopping)


async def _back_off(team: Team, member: Member, stopping: trio.Event) -> bool:
    """Wait before a restart; False when it was stopped meanwhile."""
    delay = member.spec.backoff.delay(member.attempt, member.tree.rng)
    member.attempt += 1
    member.failure = None
    member.emit(EventKind.RESTARTING, delay=delay)
    try:
        with trio.move_on_after(delay):
            await stopping.wait()
        stopped = await _asked_to_stop(team, stopping, member)
    except trio.Cancelled:
        member.emit(EventKind.CANCELLED)
        raise
    if stopped:
        member.emit(EventKind.STOPPED)
    return not stopped


async def _live(life: Life, rest: Rest, stopping: trio.Event) -> None:
    """Serve, with the rest inside, until both have ended. What fails is kept, not raised."""
    life.member.emit(EventKind.STARTING)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, life, name=life.member.path)
        nursery.start_soon(_stop_in_order, life, stopping)
        await life.settled.wait()
        if life.ready_at is not None:
            async with trio.open_nursery() as inside:
                # A task of its own: a long group would use up Python's recursion limit.
                inside.start_soon(rest, life.rest_stopping)
        life.rest_ended.set()
        await life.ended.wait()
        nursery.cancel_scope.cancel()


async def _stop_in_order(life: Life, stopping: trio.Event) -> None:
    await stopping.wait()
    await life.end_rest()
    member = life.member
    if member.state not in (EventKind.STARTING, EventKind.READY):
        return
    member.emit(EventKind.STOPPING)
    life.stopping.set()
    if isinstance(member.spec, Group):
        return  # each of its children has a grace of its own
    grace = 0 if life.ready_at is None else member.spec.grace
    life.scope.deadline = trio.current_time() + grace
    await member.tree.control.cancelled.wait()
    life.scope.cancel()


async def _serve(life: Life) -> None:
    member = life.member
    try:
        with life.scope:
            await _run(life)
    except BaseException as error:
        failure = _without_cancelled(error)
        if failure is None:
            member.emit(EventKind.CANCELLED)
            raise
        await _judge(life, failure)
    else:
        cancelled = life.scope.cancelled_caught
        member.emit(EventKind.CANCELLED if cancelled else EventKind.STOPPED)
    finally:
        life.settled.set()
        life.ended.set()


async def _judge(life: Life, failure: BaseException) -> None:
    """Decide what a failure means, and see to it that what has to stop for it does."""
    life.fail(failure)
    team = life.member.team
    if team is None:
        return
    if team.may_restart(life):
        life.restart = True
        life.rest_stopping.set()
    else:
        await team.give_up()


async def _run(life: Life) -> None:
    member = life.member
    if isinstance(member.spec, Group):
        await _serve_group(life, member.spec)
    else:
        await member.spec.serve(stopping=life.stopping, task_status=life)
    if life.ready_at is None and not life.stopping.is_set():
        raise RuntimeError(f"{member.path} returned without calling task_status.started()")


def _without_cancelled(error: BaseException) -> BaseException | None:
    """What of an error is a failure: all but the cancellation of the whole tree from outside."""
    if isinstance(error, trio.Cancelled):
        return None
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return error


async def _asked_to_stop(team: Team, stopping: trio.Event, *starting: Member) -> bool:
    """Whether nothing may be started any more; waits for a request that is on its way here."""
    ending = team.giving_up or team.life.member.tree.control.stopping.is_set()
    if ending or any(member.stands_on_a_failure for member in starting):
        await stopping.wait()
    return stopping.is_set()


def _failures(members: Sequence[Member]) -> list[BaseException]:
    return [member.failure for member in members if member.failure is not None]
