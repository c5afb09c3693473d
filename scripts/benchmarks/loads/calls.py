"""Create a node and prepare calls of its own for h2load: `calls FLEET FOLDER`.

Makes each call once, through a gRPC client that would notice an error. Reports for each the file
with the body that h2load has to send, and the bytes of body that a good answer has.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path

from benchmarks.loads.flower import Client, create_node, pull_task_ins
from superlink_trio.wire import superlink_pb2 as pb

# Before each message: whether it is compressed, and its length.
# Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
_PREFIX = struct.Struct(">?I")


def main(address: str, folder: str) -> None:
    fleet = Client("Fleet", address)
    node = create_node(fleet)
    requests = {
        "Ping": pb.PingRequest(node=node, ping_interval=30).SerializeToString(),
        "PullTaskIns": pull_task_ins(node),
    }
    prepared = {}
    for name, request in requests.items():
        answer = fleet.call(name)(request)
        body = Path(folder, f"{name}.body")
        body.write_bytes(_PREFIX.pack(False, len(request)) + request)
        prepared[name] = {"body": str(body), "answer_bytes": _PREFIX.size + len(answer)}
    print(json.dumps(prepared))


if __name__ == "__main__":
    main(*sys.argv[1:])
