"""The workers: a Trio task for each, which gives its actor one job at a time and replaces it.

One at a time, so that an actor that dies takes no other job with it, and no job waits behind a slow
one while another worker has nothing to do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import ray
import trio
from ray.exceptions import RayActorError, RayError

from superlink_trio.simulation.backend import AppNotLoaded
from superlink_trio.simulation.parcels import Part, Shared, answer_files, put, view
from superlink_trio.simulation.ray.actor import Array, Reply, as_array
from superlink_trio.simulation.ray.protocol import Died, Done, Frames, Run

T = TypeVar("T")

# How long a worker may take to get its resources. They are free in our own Ray; on a cluster others
# may hold them, and then those workers have to do that came up.
_PLACING = 60.0

# Before another try to replace a worker, in seconds; after the last one something is wrong with
# Ray or the machine, and not with a worker.
_DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0)

_LONGEST = 1000

# Bytes of contents in the object store beyond what jobs under way need.
_KEPT = 256 * 1024 * 1024

_log = logging.getLogger(__name__)


class NoWorker(Exception):
    """No worker can be started, or started again."""


@attrs.define(eq=False)
class _Job:
    request: Run
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


class _Contents:
    """Contents in Ray's object store: each is put there once, and kept while it may be asked for.

    A job holds what it needs by itself. What was used last is kept, up to `_KEPT` bytes, because
    the next nodes often get the same; files that are the same have the same path.
    """

    def __init__(self) -> None:
        self._put: dict[Shared, tuple[ray.ObjectRef[Array], int]] = {}

    def get(self, shared: Shared) -> ray.ObjectRef[Array]:
        """Put what is in a file into the store, or find it there. Raises FileNotFoundError."""
        if (kept := self._put.pop(shared, None)) is None:
            array = as_array(shared.view())
            kept = ray.put(array), array.nbytes
        self._put[shared] = kept
        excess = sum(size for _, size in self._put.values()) - _KEPT
        for known, (_, size) in list(self._put.items())[:-1]:
            if excess <= 0:
                break
            excess -= size
            del self._put[known]
        return kept[0]


class Pool:
    """Runs jobs on actors that `make` makes, and answers by frames."""

    def __init__(self, make: Callable[[], Any], frames: Frames) -> None:
        self._make = make
        self._frames = frames
        self._contents = _Contents()
        self._jobs, self._next = trio.open_memory_channel[_Job](math.inf)
        self._under_way: dict[int, _Job] = {}

    def run(self, request: Run) -> None:
        """Run a job as soon as a worker is free; the answer is Done or Died."""
        job = self._under_way[request.number] = _Job(request)
        self._jobs.send_nowait(job)

    def cancel(self, number: int) -> None:
        """End a job, together with the worker that runs it; nothing if it has been answered."""
        job = self._under_way.get(number)
        if job is not None:
            job.scope.cancel()

    async def serve(self, size: int, *, task_status: trio.TaskStatus[int]) -> None:
        """Keep up to `size` workers; `started` gets the number of those that have loaded the app.

        Raises AppNotLoaded, and NoWorker if none can be started or one cannot be replaced.
        """
        actors = await self._start(size)
        async with trio.open_nursery() as nursery:
            for actor in actors:
                nursery.start_soon(self._keep, actor)
            task_status.started(len(actors))

    async def _start(self, size: int) -> list[Any]:
        actors = [self._make() for _ in range(size)]
        placed = await _placed(actors)
        for actor in actors:
            if actor not in placed:
                ray.kill(actor)
        if not placed:
            raise NoWorker(f"Ray has placed no worker within {_PLACING:.0f} s: is all of it taken?")
        if len(placed) < size:
            _log.warning("%d of %d workers came up: others hold the rest", len(placed), size)
        async with trio.open_nursery() as nursery:
            for actor in placed:
                nursery.start_soon(_load, actor)
        return placed

    async def _keep(self, actor: Any) -> None:
        while True:
            await self._work(actor)
            ray.kill(actor)
            actor = await self._replaced()

    async def _work(self, actor: Any) -> None:
        """Give jobs to an actor for as long as it lives."""
        async for job in self._next:
            alive = True
            if not job.scope.cancel_called:
                alive = await self._run(actor, job)
            del self._under_way[job.request.number]
            if not alive:
                return

    async def _run(self, actor: Any, job: _Job) -> bool:
        """Run a job and answer it. Whether the actor can run another one."""
        number = job.request.number
        with job.scope:
            try:
                reply = await result(self._start_job(actor, job.request))
            except FileNotFoundError:
                # Its files are there for as long as somebody waits for it.
                self._frames.send(Died(number, "it was cancelled"))
                return True
            except RayError as error:
                self._frames.send(Died(number, _short(error)))
                return not isinstance(error, RayActorError)
            with trio.CancelScope(shield=True):
                await self._answer(job.request, reply)
        return not job.scope.cancelled_caught

    def _start_job(self, actor: Any, request: Run) -> ray.ObjectRef[Reply]:
        content: ray.ObjectRef[Array] | Array | None
        if isinstance(request.content, Shared):
            content = self._contents.get(request.content)
        else:
            content = as_array(request.content)
        state = as_array(view(request.state))
        reference: ray.ObjectRef[Reply] = actor.run.remote(request.job, content, state)
        return reference

    async def _answer(self, request: Run, reply: Reply) -> None:
        pickled, content, state = reply
        content_file, state_file = answer_files(request.answers)
        content_part = await _put_down(content, content_file)
        state_part = await _put_down(state, state_file)
        self._frames.send(Done(request.number, pickled, content_part, state_part))

    async def _replaced(self) -> Any:
        problem = ""
        for delay in _DELAYS:
            await trio.sleep(delay)
            actor = self._make()
            try:
                # An app that can no longer be loaded is reported by the outcome of each job.
                await result(actor.load.remote())
            except RayError as error:
                problem = _short(error)
                _log.warning("A worker cannot be replaced: %s", problem)
            else:
                return actor
        raise NoWorker(f"a worker cannot be replaced: {problem}")


async def result(reference: ray.ObjectRef[T]) -> T:
    """Wait for what a reference stands for. Raises what Ray makes of a failure."""
    token = trio.lowlevel.current_trio_token()
    done = trio.Event()
    future = reference.future()
    future.add_done_callback(lambda _: token.run_sync_soon(done.set))
    await done.wait()
    answer: T = future.result()
    return answer


async def _placed(actors: Sequence[Any]) -> list[Any]:
    """Give those of the actors that get their resources in time. Raises NoWorker."""
    placed: list[Any] = []

    async def place(actor: Any) -> None:
        try:
            await result(actor.place.remote())
        except RayError as error:
            raise NoWorker(f"a worker cannot be started: {_short(error)}") from error
        placed.append(actor)

    with trio.move_on_after(_PLACING):
        async with trio.open_nursery() as nursery:
            for actor in actors:
                nursery.start_soon(place, actor)
    return placed


async def _load(actor: Any) -> None:
    try:
        problem = await result(actor.load.remote())
    except RayError as error:
        problem = f"the worker that loaded it ended: {_short(error)}"
    if problem is not None:
        raise AppNotLoaded(problem)


async def _put_down(array: Array | None, path: str) -> Part:
    return None if array is None else await trio.to_thread.run_sync(put, array.data, path)


def _short(error: RayError) -> str:
    # Ray surrounds what was seen with figures and advice, over many lines.
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
