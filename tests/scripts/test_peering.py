"""What scripts and tests start programs with, and how a program that misbehaves is told of."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import trio
from peering.client import Client, NotAnswered, over_grpc, over_rest
from peering.processes import Misbehaved, Program, free_address, launching, output, running
from peering.today import end_all, processes, surroundings

_ECHO = "import sys; print('{\"ready\": 1}', flush=True); print(sys.stdin.readline() * 2)"


def echo() -> tuple[str, str, str]:
    return (sys.executable, "-c", _ECHO)


async def test_a_program_is_read_and_written_to() -> None:
    async with running("echo", *echo()) as program:
        assert await program.report("ready") == {"ready": 1}
        await program.write("hi\n")
        assert await program.line("hi", nth=2) == "hi"
        assert await program.end() == 0


async def test_a_line_that_never_comes_is_told_with_the_last_words() -> None:
    last = r"echo ended without line 1 of 'no', with status 0: .*x"
    async with running("echo", *echo()) as program:
        await program.write("x\n")
        with pytest.raises(Misbehaved, match=last):
            await program.line("no")


async def test_a_program_that_ends_instead_of_listening_is_told_of() -> None:
    with pytest.raises(Misbehaved, match="ended before it listened, with status 3: "):
        async with running("quitter", sys.executable, "-c", "raise SystemExit(3)") as program:
            await program.listens(free_address())


async def test_no_program_outlives_its_block() -> None:
    programs: list[Program] = []

    async def fail() -> None:
        async with launching() as launch:
            programs.extend([await launch("echo", *echo()) for _ in range(2)])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert [program.process.poll() for program in programs] == [-signal.SIGKILL] * 2


async def test_programs_of_flower_end_with_whatever_they_have_started(tmp_path: Path) -> None:
    # What leads a session of its own, and is nobody's child any more.
    start = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    async with launching(sessions=True) as launch:
        variables = surroundings(Path(sys.executable).parent, tmp_path)
        program = await launch("starter", sys.executable, "-c", start, **variables)
        await program.process.wait()
        assert len(processes(tmp_path, "sleep")) == 1
        with trio.fail_after(5):
            await end_all(tmp_path)
    assert processes(tmp_path) == []


async def test_a_program_that_fails_is_told_of_with_what_it_wrote() -> None:
    with pytest.raises(Misbehaved, match="status 1: so long"):
        await output(sys.executable, "-c", "print('so long'); raise SystemExit(1)", seconds=60)


@pytest.mark.parametrize("rest", [False, True], ids=["gRPC", "REST"])
async def test_a_call_that_nobody_answers_is_told_of(rest: bool) -> None:
    address = free_address()
    client = Client(over_rest(address) if rest else over_grpc(address, "Fleet"))
    with pytest.raises(NotAnswered, match="ConnectionRefusedError" if rest else "UNAVAILABLE"):
        await trio.to_thread.run_sync(client.create_node)
