"""Large contents, put into shared memory once for all the workers that need them.

A round sends one model to many nodes. Given to a worker through a pipe, 64 MB take 168 ms and as
much memory again; a worker that maps a file needs 2 ms. So each distinct content is written once,
and freed when no job needs it any more; the latest ones are kept a little longer, since the next
nodes often get the same. Outcomes come back the same way, each in files of its own.

The files are in a folder of this process alone.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from superlink_trio.simulation.backend import Job, Outcome
from superlink_trio.simulation.folders import private_folder
from superlink_trio.simulation.parcels import (
    Answer,
    Parcel,
    Part,
    Shared,
    answer_files,
    join,
    remove,
    split,
    write,
)

_KEPT: Final = 256 * 1024 * 1024
"""Bytes of contents that no job uses and that are kept all the same."""

_SHARED_MEMORY = Path("/dev/shm")
_FAMILY = f"superlink-trio-{os.getuid()}-"

_log = logging.getLogger(__name__)


@attrs.define(eq=False)
class _File:
    """A content in shared memory, and how many jobs use it."""

    shared: Shared
    digest: bytes
    size: int
    users: int = 0


@attrs.define(eq=False)
class _Held:
    """A bytes object that jobs under way carry: what is known of it holds as long as it lives."""

    content: bytes
    file: _File
    users: int = 0


class Shares:
    """Makes parcels of jobs, and outcomes of answers."""

    def __init__(self, directory: Path, kept: int = _KEPT) -> None:
        self._directory = directory
        self._kept = kept
        self._numbers = itertools.count(1)
        self._held: dict[int, _Held] = {}
        # In the order in which they were used last.
        self._files: dict[bytes, _File] = {}
        self._sharing = trio.Lock()
        self._warned = False

    @property
    def size(self) -> int:
        """Bytes of all contents that are shared now; answers are not counted."""
        return sum(file.size for file in self._files.values())

    @asynccontextmanager
    async def parcel(self, job: Job) -> AsyncIterator[Parcel]:
        """Make a parcel of a job, for one worker. Its files are there until the block is left."""
        answers = f"{self._directory}/{next(self._numbers)}"
        rest, content, state = split(job)
        held: _Held | None = None
        given: Part = state
        given_file = f"{answers}.given"
        try:
            if content is not None:
                held = await self._hold(content)
            if state is not None and await self._write(given_file, state):
                given = Shared(given_file)
            yield Parcel(
                job=rest,
                content=content if held is None else held.file.shared,
                state=given,
                answers=answers,
            )
        finally:
            if held is not None:
                self._release(held)
            # A worker that was ended may have left answers that nobody asked for.
            for path in (*answer_files(answers), given_file):
                remove(Shared(path))

    async def outcome(self, answer: Answer) -> Outcome:
        """Make an outcome of an answer, inside of the block of its parcel."""
        return join(answer.outcome, await _read(answer.content), await _read(answer.state))

    async def _hold(self, content: bytes) -> _Held | None:
        held = self._held.get(id(content))
        if held is None:
            # A round's jobs come all at once: the first of them shares what they have in common.
            async with self._sharing:
                held = self._held.get(id(content))
                if held is None:
                    file = await self._share(content)
                    if file is None:
                        return None
                    held = self._held[id(content)] = _Held(content, file)
        held.users += 1
        held.file.users += 1
        return held

    async def _share(self, content: bytes) -> _File | None:
        digest = (await trio.to_thread.run_sync(hashlib.sha256, content)).digest()
        file = self._files.pop(digest, None)
        if file is None:
            path = f"{self._directory}/{next(self._numbers)}.shared"
            if not await self._write(path, content):
                return None
            file = _File(Shared(path), digest, len(content))
        self._files[digest] = file
        return file

    def _release(self, held: _Held) -> None:
        held.users -= 1
        held.file.users -= 1
        if not held.users:
            del self._held[id(held.content)]
        unused = [file for file in self._files.values() if not file.users]
        excess = sum(file.size for file in unused) - self._kept
        for file in unused:
            if excess <= 0:
                break
            excess -= file.size
            del self._files[file.digest]
            remove(file.shared)

    async def _write(self, path: str, data: bytes) -> bool:
        written = await trio.to_thread.run_sync(write, path, data)
        if not written and not self._warned:
            self._warned = True
            _log.warning(
                "There is no room for %d MB in %s: large contents are sent to the workers one by "
                "one, which takes time and memory (Docker gives 64 MB unless told --shm-size)",
                len(data) >> 20,
                self._directory.parent,
            )
        return written


@asynccontextmanager
async def open_shares(root: Path | None = None) -> AsyncIterator[Shares]:
    """Give the block a private directory in shared memory; nothing is left of it afterwards.

    It is made in `root`: without it in /dev/shm, or where there is none in the directory for
    temporary files.
    """
    if root is None:
        usable = os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
        root = _SHARED_MEMORY if usable else Path(tempfile.gettempdir())
    async with private_folder(root, _FAMILY, f"{os.getpid()}-") as directory:
        yield Shares(directory)


async def _read(part: Part) -> bytes | None:
    if isinstance(part, Shared):
        return await trio.to_thread.run_sync(Path(part.path).read_bytes)
    return part
