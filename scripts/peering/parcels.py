"""What today's Flower sends: bundles of apps, and messages with the objects that belong to them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

import attrs

from superlink_trio.state.messages import SERVER
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import Envelope
from superlink_trio.wire.objects import make_object, object_id_of

PROJECT = """
[project]
name = "app"
version = "1.2.3"
[tool.flwr.app]
publisher = "me"
[tool.flwr.app.config]
rounds = 3
optimizer.lr = 0.1
"""


def bundle(project: str = PROJECT, **files: bytes) -> pb.Fab:
    """Pack an app; `files`: what is in it besides its project."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", project)
        for name, content in files.items():
            archive.writestr(name, content)
    return pb.Fab(content=buffer.getvalue())


@attrs.frozen
class Parcel:
    """A message and everything it says."""

    envelope: Envelope
    objects: Mapping[str, bytes]

    @property
    def message_id(self) -> str:
        return self.envelope.message_id

    @property
    def run_id(self) -> int:
        return self.envelope.message.metadata.run_id


def parcel(
    run_id: int,
    *,
    source: int = SERVER,
    to: int,
    reply_to: str = "",
    parts: tuple[bytes, ...] = (b"weights",),
    created_at: float = 1_800_000_000.0,
    ttl: float = 3600.0,
    message_type: str = "train",
    group_id: str = "",
) -> Parcel:
    """Make a message whose root has a child for each part."""
    chunks = [chunk(part) for part in parts]
    ids = [object_id_of(each) for each in chunks]
    metadata = pb.Metadata(
        run_id=run_id,
        src_node_id=source,
        dst_node_id=to,
        reply_to_message_id=reply_to,
        created_at=created_at,
        ttl=ttl,
        message_type=message_type,
        group_id=group_id,
    )
    bare = root_over(ids, metadata)
    return attrs.evolve(bare, objects={**dict(zip(ids, chunks, strict=True)), **bare.objects})


def chunk(part: bytes) -> bytes:
    """Make an object that has no children."""
    return make_object("ArrayChunk", part)


def root_over(ids: Sequence[str], metadata: pb.Metadata) -> Parcel:
    """Make a message whose root has these children, which are not in the parcel."""
    message = pb.Message(metadata=metadata, content=b"")
    body = message.SerializeToString(deterministic=True)
    root = make_object("Message", body, ",".join(ids))
    root_id = object_id_of(root)
    message.metadata.message_id = root_id
    children = [pb.ObjectTree(object_id=object_id) for object_id in ids]
    tree = pb.ObjectTree(object_id=root_id, children=children)
    return Parcel(Envelope(message, tree), {root_id: root})
