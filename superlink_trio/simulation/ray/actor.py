"""The actor: what runs in each of Ray's worker processes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from superlink_trio.simulation import worker
from superlink_trio.simulation.backend import App, AppNotLoaded, Job
from superlink_trio.simulation.parcels import LARGE
from superlink_trio.simulation.worker import Manners
from superlink_trio.wire.splice import Buffer

Array: TypeAlias = NDArray[np.uint8]
"""Bytes as Ray hands them over by reference: what is an array is not copied out of its store."""

Reply: TypeAlias = tuple[bytes, Array | None, Array | None]
"""A pickled outcome; its content and its state, where they are large and not in it."""


class Actor:
    """Loads the app and runs it, one job after the other."""

    def __init__(self, app: App, manners: Manners, *, shipped: bool) -> None:
        # What was shipped lies where Ray has unpacked it, and that is the working directory.
        self._app = attrs.evolve(app, directory=Path.cwd()) if shipped else app
        self._manners = manners

    def place(self) -> int:
        """Give the process id: to be asked means that the actor has got its resources."""
        return os.getpid()

    def load(self) -> str | None:
        """Load the app; give the traceback where that fails."""
        try:
            worker.start(self._app, self._manners)
        except AppNotLoaded as error:
            return str(error)
        return None

    def run(self, pickled: bytes, content: Array | None, state: Array | None) -> Reply:
        """Run one job, with a content and a state that may lie beside it."""
        job: Job = pickle.loads(pickled)
        outcome = worker.run_with(
            self._app,
            job,
            job.task.content if content is None else content.data,
            job.state if state is None else state.data,
        )
        new_content, new_state = outcome.content, outcome.state
        large_content = large_state = None
        if isinstance(new_content, bytes) and len(new_content) >= LARGE:
            outcome = attrs.evolve(outcome, content=b"")
            large_content = as_array(new_content)
        if len(new_state) >= LARGE:
            outcome = attrs.evolve(outcome, state=b"")
            large_state = as_array(new_state)
        return pickle.dumps(outcome), large_content, large_state


def as_array(content: Buffer) -> Array:
    """View bytes as an array, without a copy."""
    return np.frombuffer(content, dtype=np.uint8)
