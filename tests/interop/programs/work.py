"""A simulation's worker, by hand: `work.py APP` runs the jobs of one node, one after another.

With `work.py APP objects` they are of Flower 1.23 or later. Jobs come pickled on standard input,
their outcomes go pickled to standard output.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import attrs

from superlink_trio.simulation import worker
from superlink_trio.simulation.backend import App

if __name__ == "__main__":
    reference, *objects = sys.argv[1:]
    folder = Path(__file__).parent
    app = App(reference=reference, directory=folder, objects=bool(objects))
    state = b""
    outcomes = []
    for job in pickle.load(sys.stdin.buffer):
        outcomes.append(worker.run(app, attrs.evolve(job, state=state)))
        state = outcomes[-1].state
    sys.stdout.buffer.write(pickle.dumps(outcomes))
