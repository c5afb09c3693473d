"""Wait until so many nodes are online: `nodes DRIVER NUMBER`."""

from __future__ import annotations

import json
import sys
import time

from benchmarks.loads.flower import Client, create_run
from superlink_trio.wire import superlink_pb2 as pb


def main(address: str, number: str) -> None:
    driver = Client("Driver", address)
    request = pb.GetNodesRequest(run_id=create_run(driver)).SerializeToString()
    get_nodes = driver.call("GetNodes")
    while len(pb.GetNodesResponse.FromString(get_nodes(request)).nodes) < int(number):
        time.sleep(0.1)
    print(json.dumps({"nodes": int(number)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
