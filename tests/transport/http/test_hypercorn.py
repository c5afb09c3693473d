"""What is used of Hypercorn without being public: this fails when it moves."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.protocol.h2 import H2Protocol, StreamBuffer
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from packaging.requirements import Requirement
from trio.testing import wait_all_tasks_blocked

from superlink_trio import config
from superlink_trio.transport.http import HttpOptions, connection

# Ours alone, in Hypercorn's classes.
OWN = {"response_headers", "_end", "_end_early", "_count", "_settle"}


def overridden() -> list[Any]:
    return [
        pytest.param(ours, base, name, id=f"{base.__name__}.{name}")
        for ours, base in (
            (connection._H11, H11Protocol),
            (connection._H2, H2Protocol),
            (connection._Buffer, StreamBuffer),
        )
        for name, member in vars(ours).items()
        if inspect.isfunction(member) and name != "__init__" and name not in OWN
    ]


@pytest.mark.parametrize(("ours", "base", "name"), overridden())
def test_what_we_override_is_there_and_called_alike(ours: Any, base: Any, name: str) -> None:
    ours, theirs = getattr(ours, name), getattr(base, name)
    count = [len(inspect.signature(function).parameters) for function in (ours, theirs)]
    assert count[0] == count[1]
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


@pytest.mark.parametrize("base", [H11Protocol, H2Protocol])
def test_protocols_are_made_of_what_we_give_them(base: Any) -> None:
    class Owner:
        options = HttpOptions()
        scheme = "http"

        async def on_event(self, event: object) -> None:
            pass

    wiring = connection._wiring(Owner())  # type: ignore[arg-type]  # all that is looked at
    wanted = set(inspect.signature(base.__init__).parameters) - {"self"}
    assert wanted == set(wiring)


async def test_a_buffer_waits_for_room_and_no_longer() -> None:
    buffer = connection._Buffer(WorkerContext(None).event_class)
    await buffer.push(b"abc")
    assert (await buffer.pop(2), buffer.complete) == (b"ab", False)
    buffer.set_complete()
    assert (await buffer.pop(2), buffer.complete) == (b"c", True)

    full = connection._Buffer(WorkerContext(None).event_class)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.push, bytes(65_536))
        await wait_all_tasks_blocked()
        for room in (0, 0, 16_384, 16_384, 16_384):
            assert len(await full.pop(room)) == room
            await wait_all_tasks_blocked()
            assert nursery.child_tasks
        await full.pop(16_384)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(full.push, bytes(65_536))
        await wait_all_tasks_blocked()
        await full.close()
    assert full.complete


def test_what_is_installed_is_what_was_tested() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    [pin] = [
        requirement
        for requirement in map(Requirement, project["project"]["optional-dependencies"]["rest"])
        if requirement.name == "hypercorn"
    ]
    assert pin.specifier.contains(version("hypercorn"))
    # The command line says so before anything is started.
    assert pin.specifier.contains(f"{config._HYPERCORN}0")
    assert not pin.specifier.contains("0.19.0")
