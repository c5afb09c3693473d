"""Messages, runs and bundles of Flower 1.23 and later, and how they look on the wire."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Mapping, Sequence

import attrs

from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.objects import MalformedObject
from superlink_trio.wire.runs import Fab, Scalar

FEDERATION = "@none/default"
"""The one federation that a SuperLink without accounts has."""

SERVER_APP, SIMULATION = "flwr-serverapp", "flwr-simulation"
"""What runs a run: the type of its task, and the program."""


@attrs.frozen(kw_only=True)
class NodeRecord:
    """A registered node. Times are Unix seconds."""

    node_id: int
    public_key: bytes = attrs.field(repr=False)
    registered_at: float
    activated_at: float | None = None
    deactivated_at: float | None = None
    online_until: float = 0.0
    heartbeat_interval: float = 0.0
    registered_itself: bool = False
    """Whether nobody but the node has asked for it."""
    name: str = ""
    location: str = ""

    def status(self, now: float) -> str:
        """Give what Flower calls how it is with a node at this moment."""
        if self.online_until > now:
            return "online"
        return "registered" if self.came_at is None else "offline"

    @property
    def came_at(self) -> float | None:
        """When it came online last; None for a node that never did.

        One that was taken back after a restart, and was not started again since, came then.
        """
        if self.activated_at is None and (self.online_until or self.deactivated_at):
            return self.registered_at
        return self.activated_at


class RunStatus(enum.Enum):
    """How far a run has come."""

    PENDING = "pending"
    STARTING = "starting"
    """Claimed: its process is being started."""
    RUNNING = "running"
    FINISHED = "finished"


class Outcome(enum.Enum):
    """How a run has ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


@attrs.frozen(kw_only=True)
class RunRecord:
    """A run. Times are Unix seconds, 0 for what has not happened yet."""

    run_id: int
    task_id: int
    """Of the process that runs its ServerApp, or all of it."""
    series_id: int
    """Nodes keep their state for all runs of a series; a run has its own unless one is named."""
    fab_id: str
    fab_version: str
    fab_hash: str
    override_config: Mapping[str, Scalar] = attrs.field(factory=dict)
    pending_at: float
    starting_at: float = 0.0
    running_at: float = 0.0
    finished_at: float = 0.0
    status: RunStatus = RunStatus.PENDING
    outcome: Outcome | None = None
    details: str = ""
    simulation: pb.SimulationConfig | None = None
    """How it is simulated; None: its nodes are those that are registered."""

    @property
    def task_type(self) -> str:
        """What runs it."""
        return SERVER_APP if self.simulation is None else SIMULATION


@attrs.frozen
class Envelope:
    """A message without what it says, and the tree of that."""

    message: pb.Message
    tree: pb.ObjectTree

    @property
    def message_id(self) -> str:
        """Its id: the root of the tree."""
        return self.message.metadata.message_id


def write_scalar(value: Scalar) -> pb.Scalar:
    """Give a value as messages carry it."""
    match value:
        case bool():
            return pb.Scalar(bool_value=value)
        case int():
            return pb.Scalar(sint64_value=value)
        case float():
            return pb.Scalar(double_value=value)
        case str():
            return pb.Scalar(string_value=value)
        case bytes():
            return pb.Scalar(bytes_value=value)


def write_fab(fab: Fab) -> pb.Fab:
    """Give a bundle as it is answered to GetFab."""
    return pb.Fab(hash_str=fab.hash, content=fab.content)


def iso(unix_seconds: float | None) -> str:
    """Give a time in ISO 8601, UTC; "" for one that has not come."""
    if not unix_seconds:
        return ""
    return datetime.datetime.fromtimestamp(unix_seconds, tz=datetime.UTC).isoformat()


def envelopes_of(
    messages: Sequence[pb.Message], trees: Sequence[pb.ObjectTree]
) -> Sequence[Envelope]:
    """Put messages together with their trees. Raises MalformedObject where they do not fit."""
    if len(messages) != len(trees):
        raise MalformedObject(f"there are {len(messages)} messages and {len(trees)} trees")
    for message in messages:
        if message.HasField("error") == message.HasField("content") or message.content:
            raise MalformedObject("a message has either an error or an empty content")
    return [Envelope(message, tree) for message, tree in zip(messages, trees, strict=True)]


def write_run(run: RunRecord) -> pb.Run:
    """Give a run as it is answered to nodes, apps and operators."""
    return pb.Run(
        run_id=run.run_id,
        fab_id=run.fab_id,
        fab_version=run.fab_version,
        fab_hash=run.fab_hash,
        override_config={key: write_scalar(value) for key, value in run.override_config.items()},
        pending_at=iso(run.pending_at),
        starting_at=iso(run.starting_at),
        running_at=iso(run.running_at),
        finished_at=iso(run.finished_at),
        status=pb.RunStatus(
            status=run.status.value,
            sub_status="" if run.outcome is None else run.outcome.value,
            details=run.details,
        ),
        federation=FEDERATION,
        primary_task_type=run.task_type,
        primary_task_id=run.task_id,
        series_id=run.series_id,
    )


def write_task(run: RunRecord) -> pb.Task:
    """Give a run as it is given to whoever starts its process."""
    return pb.Task(
        task_id=run.task_id,
        type=run.task_type,
        run_id=run.run_id,
        status=pb.TaskStatus(status=run.status.value),
        pending_at=iso(run.pending_at),
        starting_at=iso(run.starting_at),
        fab_hash=run.fab_hash,
    )


def write_node(node: NodeRecord, now: float) -> pb.NodeInfo:
    """Give a node as it is shown to apps and operators."""
    return pb.NodeInfo(
        node_id=node.node_id,
        status=node.status(now),
        registered_at=iso(node.registered_at),
        last_activated_at=None if node.came_at is None else iso(node.came_at),
        last_deactivated_at=None if node.deactivated_at is None else iso(node.deactivated_at),
        online_until=node.online_until or None,
        heartbeat_interval=node.heartbeat_interval,
        public_key=node.public_key,
        name=node.name or None,
        location=node.location or None,
    )


def write_object(content: bytes | None) -> pb.PullObjectResponse:
    """Give what is answered to PullObject; None for an object that is not there."""
    here = content is not None
    return pb.PullObjectResponse(
        object_found=here, object_available=here, object_content=content or b""
    )
