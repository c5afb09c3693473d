"""Jobs and outcomes on their way: a small pickle, and beside it whatever is large.

A model has hundreds of megabytes. In a pickle it would be copied at each step of the way; beside it
Ray hands it over by reference.
"""

from __future__ import annotations

import pickle
from typing import TypeAlias

import attrs

from superlink_trio.fleet.simulation.backend import Job, Outcome
from superlink_trio.wire.tasks import TaskError

LARGE = 64 * 1024
"""Bytes from which on something travels beside the pickle. Ray itself inlines up to 100 KiB."""

Packed: TypeAlias = tuple[bytes, bytes | None, bytes | None]
"""The pickle; the content and the state, each None where it is in the pickle."""


def pack_job(job: Job) -> Packed:
    """Pack a job."""
    content, state = _large(job.task.content), _large(job.state)
    if content is not None:
        job = attrs.evolve(job, task=attrs.evolve(job.task, content=b""))
    if state is not None:
        job = attrs.evolve(job, state=b"")
    return pickle.dumps(job), content, state


def pack_outcome(outcome: Outcome) -> Packed:
    """Pack an outcome."""
    content, state = _large(outcome.content), _large(outcome.state)
    if content is not None:
        outcome = attrs.evolve(outcome, content=b"")
    if state is not None:
        outcome = attrs.evolve(outcome, state=b"")
    return pickle.dumps(outcome), content, state


def unpack_outcome(pickled: bytes, content: bytes, state: bytes) -> Outcome:
    """Put an outcome together again; an empty `content` or `state` is in the pickle."""
    outcome: Outcome = pickle.loads(pickled)
    return attrs.evolve(outcome, content=content or outcome.content, state=state or outcome.state)


def _large(value: bytes | TaskError) -> bytes | None:
    return value if isinstance(value, bytes) and len(value) >= LARGE else None
