from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trio
import trio.testing
import trio_asyncio  # type: ignore[import-untyped]  # ships no types
from _peers import cache_folder

from superlink_trio.rpc import Caller
from superlink_trio.transport.grpc.loop import BatchingLoop, open_loop


async def echo(request: bytes, caller: Caller) -> bytes:
    return request


def fail() -> None:
    raise ValueError("nobody's error")


async def test_an_error_of_nobody_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mapping[str, Any]] = []
    async with open_loop(on_error=told.append) as loop:
        loop.call_soon(fail)
        await loop.synchronize()
        await loop.run_aio_coroutine(asyncio.sleep(0))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert [str(context["exception"]) for context in told] == ["nobody's error"]


async def test_a_handler_of_errors_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def on_error(context: Mapping[str, Any]) -> None:
        raise RuntimeError("worse")

    async with open_loop(on_error=on_error) as loop:
        loop.call_soon(fail)
        await loop.synchronize()
        await loop.run_aio_coroutine(asyncio.sleep(0))
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "nobody's error",
        "worse",
    ]


async def test_system_exit_ends_the_tree() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with open_loop() as loop:
            loop.call_soon(sys.exit, 3)
            await trio.sleep_forever()
    matching, _ = caught.value.split(SystemExit)
    assert matching is not None


async def test_system_exit_out_of_a_reader_ends_the_tree() -> None:
    reader, writer = socket.socketpair()
    with reader, writer, pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with open_loop() as loop:
            loop.add_reader(reader, sys.exit, 3)
            writer.send(b"x")
            await trio.sleep_forever()
    matching, _ = caught.value.split(SystemExit)
    assert matching is not None


async def test_callbacks_without_end_starve_neither_trio_nor_timers_nor_readers() -> None:
    stop = False
    timer, readable = trio.Event(), trio.Event()

    def again() -> None:
        if not stop:
            loop.call_soon(again)

    reader, writer = socket.socketpair()
    with reader, writer, trio.fail_after(5):
        async with open_loop() as loop:
            loop.call_soon(again)
            loop.call_later(0.01, timer.set)
            loop.add_reader(reader, readable.set)
            writer.send(b"x")
            await timer.wait()
            await readable.wait()
            loop.remove_reader(reader)
            stop = True


async def test_a_timer_set_by_a_reader_is_kept_although_the_loop_sleeps_for_longer() -> None:
    fired = trio.Event()
    reader, writer = socket.socketpair()
    with reader, writer, trio.fail_after(5):
        async with open_loop() as loop:

            def readable() -> None:
                loop.remove_reader(reader)
                loop.call_later(0.01, fired.set)

            never = loop.call_later(1000, fail)
            loop.add_reader(reader, readable)
            await trio.testing.wait_all_tasks_blocked()
            writer.send(b"x")
            await fired.wait()
            never.cancel()


async def test_callbacks_run_in_order_whatever_queues_them() -> None:
    order: list[int] = []
    async with open_loop() as loop:
        for number in range(2000):
            loop.call_soon(order.append, number)
        await loop.synchronize()
    assert order == list(range(2000))


async def test_other_threads_may_queue_callbacks() -> None:
    ran = trio.Event()
    async with open_loop() as loop:
        thread = threading.Thread(target=loop.call_soon_threadsafe, args=(ran.set,))
        await trio.testing.wait_all_tasks_blocked()
        thread.start()
        with trio.fail_after(5):
            await ran.wait()
        thread.join()


async def test_asyncio_knows_the_loop_in_readers_that_another_loop_added() -> None:
    seen: list[object] = []
    reader, writer = socket.socketpair()
    with reader, writer:
        async with open_loop() as first, open_loop():
            done = trio.Event()

            def readable() -> None:
                seen.append(asyncio.get_running_loop())
                first.remove_reader(reader)
                done.set()

            first.add_reader(reader, readable)  # in the context of the second
            writer.send(b"x")
            with trio.fail_after(5):
                await done.wait()
    assert seen == [first]


async def test_servers_on_two_loops_and_beside_an_embedding_programs_own(
    serving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def plain_echo(request: bytes, context: object) -> bytes:
        return request

    handler = grpc.method_handlers_generic_handler(
        "test.Service", {"Echo": grpc.unary_unary_rpc_method_handler(plain_echo)}
    )

    async def call(port: int) -> bytes:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            echo = channel.unary_unary("/test.Service/Echo", None, None)
            answer: bytes = await echo(b"own", timeout=10)
            return answer

    # The program's own loop in the middle: both ways round it must not get in ours' way.
    async with serving(unary={"Echo": echo}) as first:
        await first.call("Echo")
        async with trio_asyncio.open_loop() as own:
            server = grpc.aio.server()
            server.add_generic_rpc_handlers([handler])
            port = server.add_insecure_port("127.0.0.1:0")
            await own.run_aio_coroutine(server.start())
            async with serving(unary={"Echo": echo}) as second:
                for _ in range(20):
                    assert await first.call("Echo", b"first") == b"first"
                    assert await second.call("Echo", b"second") == b"second"
                    assert await own.run_aio_coroutine(call(port)) == b"own"
            assert await own.run_aio_coroutine(call(port)) == b"own"
            await own.run_aio_coroutine(server.stop(None))
        assert await first.call("Echo", b"still") == b"still"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_loop_leaves_no_descriptor_behind(serving: Any) -> None:
    counts = []
    for _ in range(12):
        async with serving(unary={"Echo": echo}) as server:
            await server.call("Echo")
        counts.append(len(os.listdir("/proc/self/fd")))
    # A connection may take a moment to close in grpc's own threads.
    assert counts[-1] <= counts[1] + 3


async def test_an_unknown_trio_asyncio_is_served_by_its_own_loop(
    serving: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trio_asyncio, "__version__", "0.99.1")
    with pytest.warns(RuntimeWarning, match=r"0\.99\.1 is unknown"):  # noqa: PT031
        async with (
            serving(unary={"Echo": echo}) as first,
            serving(unary={"Echo": echo}) as second,
        ):
            assert not isinstance(first.loop, BatchingLoop)
            for _ in range(5):
                assert await first.call("Echo", b"first") == b"first"
                assert await second.call("Echo", b"second") == b"second"
            first.loop.call_soon(fail)
            assert await first.call("Echo", b"on") == b"on"
    assert "nobody's error" in caplog.text


def fetch_sources(folder: Path, kept: Path) -> None:
    # pip builds a package to learn of its name: that takes ten seconds.
    wanted = f"trio-asyncio=={trio_asyncio.__version__}"
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wanted]
    fetched = subprocess.run(
        [*fetch, "--no-binary", "trio-asyncio", "--dest", str(folder)],
        timeout=120,
        capture_output=True,
        check=False,
    )
    if fetched.returncode != 0:
        pytest.skip(f"cannot fetch the sources of {wanted}: {fetched.stderr.decode()[-200:]}")
    (archive,) = folder.glob("*.tar.gz")
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Under its name at once or not at all: others may look for it now.
    shutil.copyfile(archive, partial := kept.with_suffix(f".{os.getpid()}"))
    partial.replace(kept)


@pytest.fixture
def trio_asyncio_source(tmp_path: Path) -> Path:
    """Unpack the sources of the installed trio-asyncio; its tests are only part of these."""
    kept = cache_folder() / f"trio-asyncio-{trio_asyncio.__version__}.tar.gz"
    if not kept.exists():
        fetch_sources(tmp_path, kept)
    with tarfile.open(kept) as sources:
        sources.extractall(tmp_path, filter="data")
    (directory,) = (path for path in tmp_path.iterdir() if path.is_dir())
    return directory


@pytest.mark.skipif(
    trio_asyncio.__version__.startswith("0.15."),
    reason="the tests of 0.15 need the pytest of their time",
)
def test_trio_asyncios_own_tests_pass_on_our_loop(trio_asyncio_source: Path) -> None:
    # Without tests/python, which runs CPython's tests of asyncio on trio-asyncio's other loop.
    folder = trio_asyncio_source / "tests"
    tests = [str(path) for path in folder.glob("test_*.py")]
    tests += [str(folder / "aiotest"), str(folder / "interop")]
    run = [sys.executable, "-m", "pytest", "-q", "-p", "batching_plugin", "-p", "no:randomly"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [*run, *tests],
        cwd=trio_asyncio_source,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100


async def test_an_event_for_a_closed_loop_does_not_hold_up_those_behind_it() -> None:
    # As grpc's own handler behaves: one event is gone each time, whatever comes of it.
    events = ["of a closed loop", "of another one", "of ours"]
    handled = trio.Event()

    def _handle_events() -> None:
        while events:
            if events.pop(0) != "of ours":
                raise RuntimeError("Event loop is closed")
            handled.set()

    reader, writer = socket.socketpair()
    with reader, writer:
        async with open_loop() as loop:
            loop.add_reader(reader, _handle_events)
            writer.send(b"xxx")
            with trio.fail_after(5):
                await handled.wait()
            loop.remove_reader(reader)
