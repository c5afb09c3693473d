"""What a process prints."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import trio
from trio.testing import MockClock

from superlink_trio.runtime.output import Output


def written(output: Output, data: bytes) -> None:
    """Write as another process does."""
    subprocess.run(
        [sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"],
        input=data,
        stdout=output.fileno(),
        check=True,
    )


def test_the_last_lines_are_kept() -> None:
    with Output("flwr-serverapp") as output:
        written(output, b"".join(b"line %d\n" % number for number in range(100)))
        written(output, b"no end")
        output.read()
        assert list(output.last_lines) == [f"line {n}" for n in range(81, 100)] + ["no end"]


def test_a_long_line_is_cut() -> None:
    with Output("flwr-serverapp") as output:
        written(output, b"x" * 5000 + b"\n" + b"\xff\n" + b" 1%\r 2%\r\n")
        output.read()
        assert [len(line) for line in output.last_lines] == [1000, 1, 3]
        assert output.last_lines[-1] == " 2%"


async def test_what_is_printed_is_logged_and_thrown_away(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "superlink_trio")
    with Output("flwr-serverapp") as output:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.follow)
            for number in range(5):
                written(output, b"%d" % number + b"." * 400_000 + b"\n")
                await trio.sleep(2)
                assert os.fstat(output.fileno()).st_size < 1_100_000
            nursery.cancel_scope.cancel()
        output.read()
        assert [line[0] for line in output.last_lines] == ["0", "1", "2", "3", "4"]
    lines = [record.getMessage()[:17] for record in caplog.records]
    assert lines == [f"flwr-serverapp: {number}" for number in range(5)]
