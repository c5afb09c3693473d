"""The actor: what runs in each of Ray's worker processes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from superlink_trio.fleet.simulation import worker
from superlink_trio.fleet.simulation.backend import App, AppNotLoaded, Job
from superlink_trio.fleet.simulation.ray.packing import pack_outcome
from superlink_trio.wire.splice import Buffer

Array: TypeAlias = NDArray[np.uint8]
"""Bytes as Ray hands them over by reference: what is an array is not copied out of its store."""

Reply: TypeAlias = tuple[bytes, Array | None, Array | None]


class Actor:
    """Loads the app and runs it, one job after the other."""

    def __init__(self, app: App, *, shipped: bool, tensorflow: bool) -> None:
        # What was shipped lies where Ray has unpacked it, and that is the working directory.
        self._app = attrs.evolve(app, directory=Path.cwd()) if shipped else app
        self._tensorflow = tensorflow

    def place(self) -> int:
        """Give the process id: to be asked means that the actor has got its resources."""
        return os.getpid()

    def load(self) -> str | None:
        """Load the app; give the traceback where that fails."""
        try:
            if self._tensorflow:
                _let_gpu_memory_grow()
            worker.load(self._app)
        except (AppNotLoaded, ImportError) as error:
            return str(error)
        return None

    def run(self, pickled: bytes, content: Array | None, state: Array | None) -> Reply:
        """Run one job. What is large in it and in its outcome is beside the pickles."""
        job: Job = pickle.loads(pickled)
        if state is not None:
            job = attrs.evolve(job, state=state.tobytes())
        given = job.task.content if content is None else content.data
        outcome = worker.run_with(self._app, job, given, job.state)
        head, new_content, new_state = pack_outcome(outcome)
        return head, _array(new_content), _array(new_state)


def as_array(content: Buffer) -> Array:
    """View bytes as an array, without a copy."""
    return np.frombuffer(content, dtype=np.uint8)


def _array(content: bytes | None) -> Array | None:
    return None if content is None else as_array(content)


def _let_gpu_memory_grow() -> None:
    # Otherwise the first worker on a GPU takes all of its memory.
    # Source: https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth
    import tensorflow as tf  # type: ignore[import-not-found, import-untyped, unused-ignore]

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
