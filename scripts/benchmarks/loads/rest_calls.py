"""Create a node over REST and write the bodies of its calls: `rest_calls FLEET FOLDER`.

Makes each call once, and checks its answer.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path

from benchmarks.loads.flower import PING_INTERVAL, pull_task_ins
from superlink_trio.wire import superlink_pb2 as pb

_TYPE = "application/protobuf"


def main(address: str, folder: str) -> None:
    create = pb.CreateNodeRequest(ping_interval=PING_INTERVAL).SerializeToString()
    node = pb.CreateNodeResponse.FromString(_call(address, "create-node", create)).node
    ping = pb.PingRequest(node=node, ping_interval=30).SerializeToString()
    requests = {"Ping": ("ping", ping), "PullTaskIns": ("pull-task-ins", pull_task_ins(node))}
    bodies = {}
    for name, (path, request) in requests.items():
        _call(address, path, request)
        body = Path(folder, f"rest-{name}.body")
        body.write_bytes(request)
        bodies[name] = str(body)
    print(json.dumps(bodies))


def _call(address: str, path: str, body: bytes) -> bytes:
    request = urllib.request.Request(
        f"http://{address}/api/v0/fleet/{path}",
        data=body,
        headers={"Content-Type": _TYPE, "Accept": _TYPE},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: bytes = answer.read()
        return content


if __name__ == "__main__":
    main(*sys.argv[1:])
