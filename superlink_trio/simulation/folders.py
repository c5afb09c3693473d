"""Folders that go with a process: at its end or, if it was killed, with the next that is started.

A lock that the kernel lets go of says which are in use.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio


@asynccontextmanager
async def private_folder(root: Path, family: str, name: str = "") -> AsyncIterator[Path]:
    """Give the block an empty folder in `root`, for this user alone; nothing is left of it.

    `family` is what the names of all folders of its kind begin with, `name` comes after that.
    Those of the family that ended processes have left are removed first.
    """
    await trio.to_thread.run_sync(_sweep, root, family)
    with _new_folder(root, family + name) as folder:
        try:
            yield folder
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(shutil.rmtree, folder, True)


@contextmanager
def _new_folder(root: Path, prefix: str) -> Iterator[Path]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        with _locked(folder) as locked:
            # Another process may have swept it before it was locked.
            if locked and folder.exists():
                yield folder
                return


def _sweep(root: Path, family: str) -> None:
    for folder in root.glob(f"{family}*"):
        with _locked(folder) as locked:
            if locked:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder of ours, if it is one and in nobody's use."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield False
        return
    try:
        yield os.fstat(descriptor).st_uid == os.getuid() and _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
