"""What the engine and the backends agree on. Read this first.

The engine takes tasks out of the state and knows nothing of processes; a backend runs the app for
one task of one node, somewhere, and knows nothing of the state. What passes between them is a `Job`
and its `Outcome`. What contents are, and Contexts, depends on the app: only a worker looks inside.

A backend is opened by an async context manager::

    async with open_backend(app, config) as backend:
        outcome = await backend.run(job)

Entering it returns when workers are up and have loaded the app. If it dies as a whole, the block is
cancelled and BackendDied comes out of it (in an ExceptionGroup); leaving the block ends every
worker, those that are running an app included, and leaves nothing behind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeAlias

import attrs

from superlink_trio.wire.runs import Scalar
from superlink_trio.wire.tasks import Task, TaskError


@attrs.frozen(kw_only=True)
class App:
    """Where an app is found."""

    reference: str
    """`module:attribute`, the attribute with dots where it lies deeper."""
    directory: Path
    """Put on the import path first."""
    objects: bool = False
    """Whether it came with a run of Flower 1.23 or later: contents are objects in one piece then
    (`wire.objects.pack`), and not serialised RecordSets."""

    def __str__(self) -> str:
        return f"{self.reference} from {self.directory}"


@attrs.frozen(kw_only=True)
class Node:
    """A simulated node. Node i of N has the partition id i."""

    node_id: int
    partition_id: int
    num_partitions: int

    @property
    def config(self) -> dict[str, int]:
        """What apps are told of it, by Flower's names."""
        return {"partition-id": self.partition_id, "num-partitions": self.num_partitions}


@attrs.frozen(kw_only=True)
class Job:
    """One task of one node.

    `task.content` is what the app gets, or an error that the driver sent. `state` is that of the
    node's Context in this run, empty at first. `run_config` is what the run was started with.
    """

    task: Task
    node: Node
    state: bytes = attrs.field(default=b"", repr=False)
    run_config: Mapping[str, Scalar] = attrs.field(factory=dict)

    @property
    def content(self) -> bytes | TaskError:
        """What the task carries."""
        return self.task.content

    def with_content(self, content: bytes) -> Job:
        """Give the same job with another content."""
        return attrs.evolve(self, task=attrs.evolve(self.task, content=content))


@attrs.frozen(kw_only=True)
class Outcome:
    """What the app made of a job.

    `content` is what the reply says, or its error: code 1 where the app could not be loaded, 2
    where it raised. `ttl` is the reply's, in seconds. `state` is the node's new one; it
    is the old one where the app failed. `report` is then the traceback, and `fault` what was raised
    and where: the same for all failures that are the same.
    """

    content: bytes | TaskError = attrs.field(repr=False)
    ttl: float
    state: bytes = attrs.field(repr=False)
    report: str = attrs.field(default="", repr=False)
    fault: str = ""

    def with_content(self, content: bytes) -> Outcome:
        """Give the same outcome with another content."""
        return attrs.evolve(self, content=content)


class WorkerDied(Exception):
    """The worker that ran a job ended before it answered; other jobs are not concerned."""


class RunOver(Exception):
    """The run that a job is part of has ended: nobody waits for an outcome."""


class BackendDied(Exception):
    """The backend as a whole is gone; the message describes how it ended."""


class AppNotLoaded(Exception):
    """The app cannot be loaded. The message is the app's own traceback, as a worker saw it."""


class Backend(ABC):
    """Runs apps."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many jobs run at the same time; more of them wait for each other."""

    @abstractmethod
    async def run(self, job: Job) -> Outcome:
        """Run the app for one task.

        If cancelled, the worker that runs it is ended, or its outcome is dropped.
        Raises WorkerDied, BackendDied, RunOver.
        """


OpenBackend: TypeAlias = Callable[[App, Mapping[str, object]], AbstractAsyncContextManager[Backend]]
"""Opens a backend for an app with the settings of `--backend-config`.

Raises AppNotLoaded, and ValueError for settings that this backend cannot use.
"""
