from __future__ import annotations

import logging
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trio
from simulations import apps, job

from superlink_trio.clientapp import RecordSet, encode
from superlink_trio.simulation import parcels
from superlink_trio.simulation.parcels import LARGE, Parcel, Shared, answer_files
from superlink_trio.simulation.shares import Shares, open_shares

_BIG = bytes(3 * LARGE)


def _content(parcel: Parcel) -> bytes:
    assert isinstance(parcel.content, Shared)
    assert parcel.job.task.content == b""
    return bytes(parcel.content.view())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_what_is_small_travels_by_itself(tmp_path: Path) -> None:
    sent = job(bytes(LARGE - 1), state=bytes(LARGE - 1))
    async with open_shares(tmp_path) as shares, shares.parcel(sent) as parcel:
        assert (parcel.job, parcel.content, parcel.state) == (sent, None, None)
        assert _files(tmp_path) == []


async def test_a_large_content_is_one_file_for_all(tmp_path: Path) -> None:
    copy = bytes(bytearray(_BIG))
    async with (
        open_shares(tmp_path) as shares,
        shares.parcel(job(_BIG)) as first,
        shares.parcel(job(_BIG)) as same,
        shares.parcel(job(copy)) as equal,
        shares.parcel(job(_BIG + b"more")) as other,
    ):
        assert first.content == same.content == equal.content != other.content
        assert _content(first) == _BIG
        assert _content(other) == _BIG + b"more"
        assert len(_files(tmp_path)) == 2


async def test_jobs_that_come_at_once_share_one_file(tmp_path: Path) -> None:
    async def use(shares: Shares) -> None:
        async with shares.parcel(job(_BIG)):
            assert len(_files(tmp_path)) == 1

    async with open_shares(tmp_path) as shares, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(use, shares)


async def test_contents_nobody_uses_are_kept_up_to_a_number_of_bytes(tmp_path: Path) -> None:
    shares = Shares(tmp_path, kept=7 * LARGE)
    contents = [bytes([number]) * 3 * LARGE for number in range(3)]
    async with shares.parcel(job(contents[0])) as used:
        for content in contents[1:]:
            async with shares.parcel(job(content)):
                pass
        assert shares.size == 9 * LARGE
        assert _content(used) == contents[0]
    # The first was used last, but it was also shared first: the order of sharing counts.
    assert shares.size == 6 * LARGE
    assert len(_files(tmp_path)) == 2
    written = {path: path.stat().st_mtime_ns for path in _files(tmp_path)}
    async with shares.parcel(job(bytes(bytearray(contents[2])))) as again:
        assert _content(again) == contents[2]
    assert {path: path.stat().st_mtime_ns for path in _files(tmp_path)} == written


async def test_a_content_larger_than_what_is_kept_goes_at_once(tmp_path: Path) -> None:
    shares = Shares(tmp_path, kept=0)
    async with shares.parcel(job(_BIG)):
        assert shares.size == len(_BIG)
    assert shares.size == 0
    assert _files(tmp_path) == []


async def test_a_view_outlives_its_file(tmp_path: Path) -> None:
    async with open_shares(tmp_path) as shares, shares.parcel(job(_BIG)) as parcel:
        assert isinstance(parcel.content, Shared)
        view = parcel.content.view()
    assert not list(tmp_path.iterdir())
    assert view == _BIG
    assert view.readonly


async def test_nobody_else_can_look(tmp_path: Path) -> None:
    async with open_shares(tmp_path) as shares, shares.parcel(job(_BIG, state=_BIG)):
        [directory] = tmp_path.iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in _files(tmp_path)} == {0o600}


async def test_a_worker_gets_views_and_leaves_files(tmp_path: Path) -> None:
    model = encode(RecordSet({"model": {"weights": np.arange(100_000)}}))
    app = apps(tmp_path, "remember")
    shared = tmp_path / "shared"
    shared.mkdir()
    async with open_shares(shared) as shares:
        async with shares.parcel(job(model, state=model + model[:0])) as parcel:
            answer = parcels.run(app, parcel)
            assert (answer.outcome.content, answer.outcome.state) == (b"", b"")
            assert all(Path(path).exists() for path in answer_files(parcel.answers))
            outcome = await shares.outcome(answer)
        assert (outcome.content, outcome.state) == (model, model)
        # The content is kept for other nodes, nothing else is.
        assert len(_files(shared)) == 1


async def test_answers_that_nobody_took_are_removed(tmp_path: Path) -> None:
    async with open_shares(tmp_path) as shares:
        async with shares.parcel(job()) as parcel:
            for path in answer_files(parcel.answers):
                assert parcels.write(path, _BIG)
        assert _files(tmp_path) == []


async def test_where_there_is_no_room_jobs_travel_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent = job(_BIG, state=_BIG)
    async with open_shares(tmp_path) as shares:
        [directory] = tmp_path.iterdir()
        shutil.rmtree(directory)  # an eager cleaner of temporary files fails the same way
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                async with shares.parcel(sent) as parcel:
                    assert (parcel.content, parcel.state) == (_BIG, _BIG)
                    assert parcels.join(parcel.job, _BIG, _BIG) == sent
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        async with open_shares(tmp_path) as shares, shares.parcel(job(_BIG)):
            raise KeyError
    assert list(tmp_path.iterdir()) == []


_KILLED = """
import sys, pathlib, trio
from superlink_trio.simulation.shares import open_shares

async def main():
    async with open_shares(pathlib.Path(sys.argv[1])):
        print("open", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_what_a_killed_process_left_goes_with_the_next_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert (await process.stdout.receive_some()).startswith(b"open")
    [left] = tmp_path.iterdir()
    async with open_shares(tmp_path):
        assert left.exists(), "it was in use"
    process.kill()
    await process.wait()
    await process.stdout.aclose()
    assert left.exists()
    async with open_shares(tmp_path):
        assert not left.exists()
