from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import trio
import trio.testing

from superlink_trio.supervision import TRANSITIONS, EventKind

PAGE = (Path(__file__).parents[2] / "docs" / "supervision.md").read_text(encoding="utf-8")


async def test_the_example_runs(recorder: Any) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/supervision.md", "exec"), names)
    ready = trio.Event()

    def observer(event: Any) -> None:
        recorder(event)
        if (event.kind, event.path) == (EventKind.READY, "app"):
            ready.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(names["main"], observer)
            await ready.wait()
            [listeners] = [e.value for e in recorder.events if e.path == "app/server" and e.value]
            async with await trio.testing.open_stream_to_socket_listener(listeners[0]) as stream:
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
            nursery.cancel_scope.cancel()
    assert [line.split(" ", 1)[1] for line in recorder.story[-6:]] == [
        "stopping app",
        "stopping app/server",
        "stopped app/server",
        "stopping app/database",
        "stopped app/database",
        "stopped app",
    ]


def test_the_event_table_is_the_table() -> None:
    rows = re.findall(r"^\| ([A-Z]+) \|.*\| ([A-Z, ]+) \|$", PAGE, re.MULTILINE)
    documented = {
        EventKind[kind]: {EventKind[name] for name in followers.split(", ")}
        for kind, followers in rows
    }
    assert documented == {kind: set(after) for kind, after in TRANSITIONS.items() if kind}
