"""How jobs and outcomes travel between processes: what is large travels out of band.

A job and an outcome have two parts that may be large: content and state. `split` takes those out,
whatever the backend, and where it does there is nothing in their place. Beside the rest goes a
`Part`: a file in shared memory that is mapped and not copied, or, where there is no room for one,
the bytes themselves. Ray has arrays instead between its own processes (`ray.actor`).

This is the worker's side, and what both sides know; `shares` is the SuperLink's.
"""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

import attrs

from superlink_trio.simulation import worker
from superlink_trio.simulation.backend import App, Job, Outcome
from superlink_trio.wire.splice import Buffer
from superlink_trio.wire.tasks import TaskError

LARGE = 256 * 1024
"""Bytes from which a file in shared memory is cheaper than a pipe (measured: about here)."""

Whole = TypeVar("Whole", Job, Outcome)


@attrs.frozen
class Shared:
    """Bytes in a file that this machine's processes can read. It may be gone at any time."""

    path: str

    def view(self) -> memoryview:
        """Map the bytes into memory, read-only. They stay readable when the file is removed."""
        with Path(self.path).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


Part: TypeAlias = Shared | bytes | None
"""A large part, beside what it belongs to; None: it is not large, and in its place."""


@attrs.frozen(kw_only=True)
class Parcel:
    """A job on its way to a worker, its large parts beside it.

    Large parts of the outcome are left in files whose names begin with `answers`.
    """

    job: Job
    content: Part = None
    state: Part = None
    answers: str


@attrs.frozen(kw_only=True)
class Answer:
    """An outcome on its way back, its large parts beside it."""

    outcome: Outcome
    content: Part = None
    state: Part = None


def split(whole: Whole) -> tuple[Whole, bytes | None, bytes | None]:
    """Take the large parts out: give the rest, its content and its state, None where not large."""
    content, state = _large(whole.content), _large(whole.state)
    rest = join(whole, None if content is None else b"", None if state is None else b"")
    return rest, content, state


def _large(part: bytes | TaskError) -> bytes | None:
    return part if isinstance(part, bytes) and len(part) >= LARGE else None


def join(rest: Whole, content: bytes | None, state: bytes | None) -> Whole:
    """Put the large parts back: the reverse of `split`."""
    if content is not None:
        rest = rest.with_content(content)
    return rest if state is None else attrs.evolve(rest, state=state)


def run(app: App, parcel: Parcel) -> Answer:
    """Run the app for the job in a parcel; a worker process calls this."""
    outcome = worker.run(app, parcel.job, view(parcel.content), view(parcel.state))
    rest, content, state = split(outcome)
    content_file, state_file = answer_files(parcel.answers)
    return Answer(outcome=rest, content=put(content, content_file), state=put(state, state_file))


def answer_files(answers: str) -> tuple[str, str]:
    """Name the files in which a worker leaves the content and the state of its outcome."""
    return f"{answers}.content", f"{answers}.state"


def put(data: Buffer | None, path: str) -> Part:
    """Put a large part into a new file; it stays as it is where there is no room for one."""
    if data is None:
        return None
    return Shared(path) if write(path, data) else bytes(data)


def view(part: Part) -> Buffer | None:
    """Give the bytes of a large part, without a copy. Raises OSError where its file is gone."""
    return part.view() if isinstance(part, Shared) else part


def remove(part: Part) -> None:
    """Remove the file of a large part, if it has one."""
    if isinstance(part, Shared):
        with suppress(FileNotFoundError):
            os.unlink(part.path)


def write(path: str, data: Buffer) -> bool:
    """Put bytes into a new file, for nobody but us; False where there is no room for it."""
    try:
        with open(path, "xb", opener=_private) as file:
            file.write(data)
    except OSError:
        Path(path).unlink(missing_ok=True)
        return False
    return True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)
