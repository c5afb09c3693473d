"""Sends one model of 32 MiB to 40 nodes; prints by how many bytes this process grew at its peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import trio
from simulations import TWO_WORKERS, apps, job

from superlink_trio.clientapp import Array, RecordSet, encode
from superlink_trio.simulation.process.backend import open_process_backend


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


async def main(folder: Path) -> None:
    weights = Array(dtype="", shape=(), stype="raw", data=bytes(32 << 20))
    model = encode(RecordSet({"model": {"weights": weights}}))
    del weights
    async with open_process_backend(apps(folder, "pid"), TWO_WORKERS) as backend:
        before = _peak()
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(backend.run, job(model))
        print(_peak() - before)


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]))
