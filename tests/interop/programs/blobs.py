"""Large results: `blobs:app` answers a seed with random bytes grown from it.

`blobs.py ADDRESS RESULTS BYTES` asks its one node for that many of them, waits for a line on
standard input, so that all can be waiting by then, and pulls until it has as many replies as
tasks. Prints a JSON line: how many pulls brought something, how many replies came, and which
seeds' bytes arrived intact.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any

import numpy as np
from driving import connect, wait_for_nodes
from flwr.client import ClientApp
from flwr.common import ConfigsRecord, Message, RecordSet

app = ClientApp()


def grow(seed: int, size: int) -> bytes:
    # Repeating a piece is much faster than growing it all, and no other seed has the same.
    return np.random.default_rng(seed).bytes(size // 64) * 64


@app.query()
def answer(message: Message, context: Any) -> Message:
    order = message.content.configs_records["order"]
    blob = ConfigsRecord({"seed": order["seed"], "bytes": grow(order["seed"], order["size"])})
    return message.create_reply(RecordSet(configs_records={"blob": blob}))


def order(driver: Any, node_id: int, seed: int, size: int) -> Any:
    content = RecordSet(configs_records={"order": ConfigsRecord({"seed": seed, "size": size})})
    return driver.create_message(content, "query", node_id, str(seed))


def pull(driver: Any, message_ids: list[str], digests: list[bytes]) -> dict[str, Any]:
    pulls, replies = 0, 0
    intact: list[int] = []
    while replies < len(message_ids):
        pulled = list(driver.pull_messages(message_ids))
        pulls += bool(pulled)
        replies += len(pulled)
        for blob in (message.content.configs_records["blob"] for message in pulled):
            if hashlib.sha256(blob["bytes"]).digest() == digests[blob["seed"]]:
                intact.append(blob["seed"])
        if not pulled:
            time.sleep(0.1)
    return {"pulls": pulls, "replies": replies, "intact": sorted(intact)}


def main() -> None:
    address, results, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    driver = connect(address)
    [node_id] = wait_for_nodes(driver, 1)
    message_ids = driver.push_messages(
        [order(driver, node_id, seed, size) for seed in range(results)]
    )
    digests = [hashlib.sha256(grow(seed, size)).digest() for seed in range(results)]
    sys.stdin.readline()
    print(json.dumps(pull(driver, list(message_ids), digests)), flush=True)


if __name__ == "__main__":
    main()
