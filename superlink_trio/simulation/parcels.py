"""How jobs and outcomes travel between processes: what is large lies in shared memory.

This is the worker's side, and what both sides know; `shares` is the SuperLink's.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import attrs

from superlink_trio.simulation import worker
from superlink_trio.simulation.backend import App, Job, Outcome
from superlink_trio.wire.splice import Buffer

LARGE = 256 * 1024
"""Bytes from which a file in shared memory is cheaper than a pipe (measured: about here)."""


@attrs.frozen
class Shared:
    """Bytes in a file that this machine's processes can read. It may be gone at any time."""

    path: str

    def view(self) -> memoryview:
        """Map the bytes into memory, read-only. They stay readable when the file is removed."""
        with Path(self.path).open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@attrs.frozen(kw_only=True)
class Parcel:
    """A job on its way to a worker. Where `content` or `state` is set, the job's own is empty.

    Large parts of the outcome are left in files whose names begin with `answers`.
    """

    job: Job
    content: Shared | None = None
    state: Shared | None = None
    answers: str


@attrs.frozen(kw_only=True)
class Answer:
    """An outcome on its way back. Where `content` or `state` is set, the outcome's is empty."""

    outcome: Outcome
    content: Shared | None = None
    state: Shared | None = None


def run(app: App, parcel: Parcel) -> Answer:
    """Run the app for the job in a parcel; a worker process calls this."""
    job = parcel.job
    outcome = worker.run_with(
        app,
        job,
        job.task.content if parcel.content is None else parcel.content.view(),
        job.state if parcel.state is None else parcel.state.view(),
    )
    answer = Answer(outcome=outcome)
    content_file, state_file = answer_files(parcel)
    content, state = outcome.content, outcome.state
    if isinstance(content, bytes) and len(content) >= LARGE and write(content_file, content):
        outcome = attrs.evolve(outcome, content=b"")
        answer = attrs.evolve(answer, outcome=outcome, content=Shared(content_file))
    if len(state) >= LARGE and write(state_file, state):
        outcome = attrs.evolve(outcome, state=b"")
        answer = attrs.evolve(answer, outcome=outcome, state=Shared(state_file))
    return answer


def answer_files(parcel: Parcel) -> tuple[str, str]:
    """Name the files in which a worker leaves the content and the state of its outcome."""
    return f"{parcel.answers}.content", f"{parcel.answers}.state"


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
