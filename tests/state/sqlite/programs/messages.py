"""Send instructions and reply to them until killed; say of each reply that it was acknowledged."""

from __future__ import annotations

import hashlib
import json
import sys

import trio
from peering.parcels import Parcel, parcel

from superlink_trio.state import SqliteState
from superlink_trio.state.messages import SERVER, DurableMessages, NewRun
from superlink_trio.wire.runs import Fab


def tell(**names: object) -> None:
    print(json.dumps(names), flush=True)


async def send(messages: DurableMessages, run_id: int, source: int, sent: Parcel) -> str:
    pushed = await messages.push(run_id, source, [sent.envelope])
    for object_id in pushed.missing:
        await messages.put_object(run_id, source, object_id, sent.objects[object_id])
    return pushed.message_ids[0]


async def main(path: str) -> None:
    state = SqliteState(path)
    messages = DurableMessages(state)
    async with trio.open_nursery() as nursery:
        for served in (state, messages):
            await nursery.start(
                lambda task_status, served=served: served.serve(
                    stopping=trio.Event(), task_status=task_status
                )
            )
        fab = Fab(hash=hashlib.sha256(b"fab").hexdigest(), content=b"fab")
        await messages.create_run(NewRun(fab=fab, fab_id="me/app", fab_version="1"))
        claim = await messages.claim_run()
        assert claim is not None
        run_id = (await messages.begin_run(claim.token)).run_id
        node_id = await messages.register_node(b"key")
        await messages.activate_node(b"key", 30.0)
        tell(run=run_id, token=claim.token, node=node_id)
        number = 0
        while True:
            number += 1
            asked = parcel(run_id, to=node_id, parts=(b"model", b"%d" % number), ttl=1e9)
            message_id = await send(messages, run_id, SERVER, asked)
            await messages.take(node_id)
            await messages.confirm(run_id, node_id, message_id)
            part = message_id.encode()
            reply = parcel(run_id, source=node_id, to=SERVER, reply_to=message_id, parts=(part,))
            await send(messages, run_id, node_id, reply)
            await messages.log(run_id, message_id)
            tell(replied=message_id)


trio.run(main, sys.argv[1])
