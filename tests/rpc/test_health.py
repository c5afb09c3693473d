"""Health checks without a transport; over real gRPC they are in tests/test_health.py."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from superlink_trio.rpc import WHOLE, Caller, CallLimit, Health, Refused, Status
from superlink_trio.wire import health_pb2 as pb

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
CALLER = Caller()


class Watcher:
    """One end of a Watch."""

    def __init__(self, service: str | None) -> None:
        self.told: list[int] = []
        self.end: Refused | None = None
        self._service = service

    async def receive(self) -> bytes:
        if self._service is None:
            await trio.sleep_forever()
        return pb.HealthCheckRequest(service=self._service).SerializeToString()

    async def send(self, message: bytes) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(pb.HealthCheckResponse.FromString(message).status)


class SlowWatcher(Watcher):
    """One whose first answer has left when nobody here knows it yet."""

    async def send(self, message: bytes) -> None:
        await super().send(message)
        if len(self.told) == 1:
            await trio.sleep_forever()


async def test_a_check_follows_what_was_noted() -> None:
    health = Health(["test.Fleet"])
    check = health.api().unary["Check"]

    async def status(service: str) -> int:
        request = pb.HealthCheckRequest(service=service).SerializeToString()
        return pb.HealthCheckResponse.FromString(await check(request, CALLER)).status

    assert [await status(WHOLE), await status("test.Fleet")] == [NOT_SERVING, NOT_SERVING]
    health.note("test.Fleet", serving=True)
    assert [await status(WHOLE), await status("test.Fleet")] == [NOT_SERVING, SERVING]
    with pytest.raises(Refused, match=r"test\.Driver") as caught:
        await status("test.Driver")
    assert caught.value.status is Status.NOT_FOUND


async def test_a_watch_is_told_every_change_and_the_end(nursery: trio.Nursery) -> None:
    health = Health(["test.Fleet", "test.Driver"])
    api, watcher, stranger = health.api(), Watcher("test.Fleet"), Watcher("test.Other")
    ends: list[Status] = []

    async def watch(each: Watcher) -> None:
        with pytest.raises(Refused) as caught:
            await api.streaming["Watch"](each, CALLER)
        ends.append(caught.value.status)

    nursery.start_soon(watch, watcher)
    nursery.start_soon(watch, stranger)
    await wait_all_tasks_blocked()
    health.note("test.Fleet", serving=True)
    await wait_all_tasks_blocked()
    health.note("test.Fleet", serving=True)
    health.note("test.Driver", serving=True)
    await wait_all_tasks_blocked()
    # At a stop both come at once.
    health.note("test.Fleet", serving=False)
    api.holds.release()
    await wait_all_tasks_blocked()
    assert watcher.told == [NOT_SERVING, SERVING, NOT_SERVING]
    assert stranger.told == [pb.HealthCheckResponse.SERVICE_UNKNOWN]
    assert ends == [Status.UNAVAILABLE] * 2


async def test_a_stop_is_told_to_who_was_being_told_of_the_start(nursery: trio.Nursery) -> None:
    health = Health(["test.Fleet"])
    api, watcher = health.api(), SlowWatcher("test.Fleet")
    health.note("test.Fleet", serving=True)

    async def watch() -> None:
        with pytest.raises(Refused):
            await api.streaming["Watch"](watcher, CALLER)

    nursery.start_soon(watch)
    await wait_all_tasks_blocked()
    health.note("test.Fleet", serving=False)
    api.holds.release()
    await wait_all_tasks_blocked()
    assert watcher.told == [SERVING, NOT_SERVING]


@pytest.mark.parametrize("service", [WHOLE, None])
async def test_a_watch_gives_way_even_before_it_has_asked(
    nursery: trio.Nursery, service: str | None
) -> None:
    health = Health([])
    api, watcher = health.api(), Watcher(service)
    limit = CallLimit(lambda: 1, [api.holds], patience=20)
    ends: list[Refused] = []

    async def watch() -> None:
        try:
            await api.streaming["Watch"](watcher, CALLER)
        except Refused as refusal:
            ends.append(refusal)

    limit.begin("Watch")
    nursery.start_soon(watch)
    await wait_all_tasks_blocked()
    limit.begin("PullTaskIns")
    await wait_all_tasks_blocked()
    [end] = ends
    assert (end.status, end.reason) == (Status.RESOURCE_EXHAUSTED, "max_calls")


async def test_a_check_is_answered_where_others_are_refused() -> None:
    limit = CallLimit(lambda: 1, [], patience=20)
    limit.begin("PushTaskIns")
    with pytest.raises(Refused):
        limit.begin("PushTaskIns")
    limit.begin("Check")
