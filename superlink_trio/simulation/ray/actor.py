"""The actor: what runs in each of Ray's worker processes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TypeAlias, overload

import attrs
import numpy as np
from numpy.typing import NDArray

from superlink_trio.simulation import parcels, worker
from superlink_trio.simulation.backend import App, AppNotLoaded
from superlink_trio.simulation.worker import WorkerSettings
from superlink_trio.wire.splice import Buffer

Array: TypeAlias = NDArray[np.uint8]
"""Bytes as Ray hands them over by reference: what is an array is not copied out of its store."""

Reply: TypeAlias = tuple[bytes, Array | None, Array | None]
"""A pickled outcome, and its large parts beside it."""


class Actor:
    """Loads the app and runs it, one job after the other."""

    def __init__(self, app: App, settings: WorkerSettings, *, shipped: bool) -> None:
        # What was shipped lies where Ray has unpacked it, and that is the working directory.
        self._app = attrs.evolve(app, directory=Path.cwd()) if shipped else app
        self._settings = settings

    def place(self) -> int:
        """Give the process id: to be asked means that the actor has got its resources."""
        return os.getpid()

    def load(self) -> str | None:
        """Load the app; give the traceback where that fails."""
        try:
            worker.start(self._app, self._settings)
        except AppNotLoaded as error:
            return str(error)
        return None

    def run(self, pickled: bytes, content: Array | None, state: Array | None) -> Reply:
        """Run one job, its large parts beside it."""
        outcome = worker.run(
            self._app,
            pickle.loads(pickled),
            None if content is None else content.data,
            None if state is None else state.data,
        )
        rest, new_content, new_state = parcels.split(outcome)
        return pickle.dumps(rest), as_array(new_content), as_array(new_state)


@overload
def as_array(part: None) -> None: ...


@overload
def as_array(part: Buffer) -> Array: ...


def as_array(part: Buffer | None) -> Array | None:
    """View a large part as an array, without a copy."""
    return None if part is None else np.frombuffer(part, dtype=np.uint8)
