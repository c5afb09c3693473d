"""The tree of a parent, over processes that only look like workers: they start in no time."""

from __future__ import annotations

import io
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from superlink_trio.config import Address, Apis, CannotStart, ConfigError, SuperLinkConfig
from superlink_trio.fleet.elsewhere import NodeCall
from superlink_trio.handle import DRIVER, FLEET
from superlink_trio.logs.wording import leaves
from superlink_trio.processes import frames
from superlink_trio.supervision import Control, TooManyRestarts
from superlink_trio.workers import place
from superlink_trio.workers.messages import LogSettings, News, Ready
from superlink_trio.workers.team import Team, run_workers

# It waits until it is told what to serve, says that it is ready, and until it is told to stop.
_PROGRAM = """
import os, signal, sys, time
_, ready, behaviour, descriptor = sys.argv
descriptor = int(descriptor)
os.read(descriptor, 1 << 20)
if behaviour.isdecimal():
    sys.exit(int(behaviour))
os.write(descriptor, bytes.fromhex(ready))
if behaviour.startswith("/") and not os.path.exists(behaviour):
    os.mkdir(behaviour)
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour.startswith("tells:"):
    os.write(descriptor, bytes.fromhex(behaviour.removeprefix("tells:")))
if behaviour.startswith("hears:"):
    heard = os.read(descriptor, 1 << 20)
    with open(behaviour.removeprefix("hears:"), "wb") as file:
        file.write(heard)
if behaviour == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "stubborn":
    time.sleep(60)
os.read(descriptor, 1 << 20)
"""

_ADDRESSES = {DRIVER: Address("127.0.0.1", 1), FLEET: Address("127.0.0.1", 2)}


def command(behaviours: Sequence[str], number: int) -> Callable[[int], Sequence[str]]:
    ready = frames.pack(Ready(_ADDRESSES)).hex()
    words = (sys.executable, "-S", "-c", _PROGRAM, ready, behaviours[number - 1])
    return lambda descriptor: [*words, str(descriptor)]


def workers(control: Control, *behaviours: str) -> Callable[..., Awaitable[None]]:
    """Give what runs as many workers, which behave like this."""
    config = SuperLinkConfig(
        insecure=True,
        database="state.db",
        workers=len(behaviours),
        driver_api_address="127.0.0.1:0",
        grpc_rere_fleet_api_address="127.0.0.1:0",
        grace=0.1,
    )
    return partial(
        run_workers,
        Apis.BOTH,
        config,
        command=partial(command, behaviours),
        log=lambda pipe: LogSettings(level="info", format="text", coloured=False, pipe=pipe),
        sockets={},
        control=control,
    )


async def test_they_are_ready_together_and_stop_when_asked() -> None:
    control = Control()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            team: Team = await nursery.start(workers(control, "serves", "serves"))
            assert team.driver_address == _ADDRESSES[DRIVER]
            assert team.fleet_address == _ADDRESSES[FLEET]
            assert team.flower_address is team.admin_address is None
            pids = [place.pid for place in team.places]
            assert len({*pids, None}) == 3
            control.stop()
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def test_one_that_dies_is_started_again_and_the_other_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    control, died = Control(), tmp_path / "died"
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            team: Team = await nursery.start(workers(control, "serves", str(died)))
            first, second = team.places
            pid = first.pid
            while "restarts in" not in caplog.text or second.pid is None:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert first.pid == pid
            control.stop()
    assert "superlink/worker-2 failed: worker 2 was ended by SIGKILL" in caplog.messages


async def test_too_many_deaths_end_all_of_them() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await workers(Control(), "serves", "dies")()
    assert [type(error) for error in leaves(caught.value)] == [TooManyRestarts]


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        ("1", CannotStart, "worker 2 ended with status 1: its lines above say why"),
        ("2", ConfigError, "worker 2 ended with status 2: its lines above say what is wrong"),
    ],
)
async def test_one_that_cannot_start_keeps_all_from_it(
    status: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await workers(Control(), "serves", status)()
    [cause] = leaves(caught.value)
    assert isinstance(cause, error)
    assert words in str(cause)


async def test_one_that_does_not_stop_is_killed_after_the_grace() -> None:
    control = Control()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(workers(control, "stubborn", "serves"))
            began = trio.current_time()
            control.stop()
    assert 1 < trio.current_time() - began < 5


async def test_what_one_tells_the_others_hear(tmp_path: Path) -> None:
    control, file = Control(), tmp_path / "heard"
    news = News({"nodes": {7: NodeCall(heard=-0.5, until=30.0)}})
    told = frames.pack(news).hex()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(workers(control, f"hears:{file}", f"tells:{told}"))
            while not (file.exists() and file.stat().st_size):
                await trio.testing.wait_all_tasks_blocked(0.01)
            control.stop()
    request = frames.read(io.BytesIO(file.read_bytes()))
    assert request.wish == news


async def test_one_that_hangs_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # A clock that runs faster would leave the kernel no time to end what is killed.
    monkeypatch.setattr(place, "_PING_EVERY", 0.01)
    monkeypatch.setattr(place, "_HANGS_AFTER", 0.1)
    control = Control()
    async with trio.open_nursery() as nursery:
        await nursery.start(workers(control, "stubborn", "stubborn"))
        while "worker-1 restarts in" not in caplog.text:
            await trio.testing.wait_all_tasks_blocked(0.01)
        control.cancel()
    assert "worker 1 has not answered within 0.1 s: it is ended" in caplog.messages
    assert "superlink/worker-1 failed: worker 1 was ended by SIGKILL" in caplog.messages
