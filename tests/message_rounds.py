"""A run of today's Flower with two nodes, played call by call: no program of Flower's is needed."""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from peering.parcels import parcel
from peering.parties import at, join, process_of, start_run
from peering.signing import Signer

from superlink_trio import SuperLink
from superlink_trio.state.messages import SERVER

_PATIENCE = 20.0  # seconds

REASON = "Traceback (most recent call last):\nValueError: no <b>such</b> model"


def place_app(folder: Path) -> Path:
    """Put a `flwr-serverapp` into a folder that does nothing but tell its token to who reads it."""
    told = folder / "token"
    os.mkfifo(told)
    program = folder / "flwr-serverapp"
    program.write_text(
        f"#!{sys.executable}\n"
        "import signal, sys\n"
        "token = open(sys.argv[sys.argv.index('--token-file') + 1]).read()\n"
        f"open({str(told)!r}, 'w').write(token)\n"
        "signal.pause()\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return told


def a_message_round(link: SuperLink, told: Path, kind: str = "train") -> Iterator[int]:
    """Play a run; go on when one of two nodes works, when it has answered, and when all failed.

    Gives the run's id. `told`: see `place_app`.
    """
    connect = at(str(link.flower_address), timeout=_PATIENCE)
    start_run(connect)
    process = process_of(connect, token_of(told))
    run_id = process.begin()
    node, idle = join(connect, Signer()), join(connect, Signer())
    parcels = [
        parcel(run_id, to=to, created_at=time.time(), message_type=kind, group_id="2")
        for to in (node.node_id, idle.node_id)
    ]
    message_ids = process.push(parcels)
    asked = node.pull()
    assert asked is not None
    yield run_id
    reply_to = asked[0].metadata.message_id
    node.push(parcel(run_id, source=node.node_id, to=SERVER, reply_to=reply_to, parts=(b"reply",)))
    process.pull(message_ids)
    yield run_id
    process.finish("failed", REASON)
    yield run_id


def token_of(told: Path) -> str:
    """Wait for the program that was placed to be started; give its token."""
    pipe = os.open(told, os.O_RDONLY | os.O_NONBLOCK)
    try:
        readable, _, _ = select.select([pipe], [], [], _PATIENCE)
        assert readable, "the program was not started"
        return os.read(pipe, 1000).decode()
    finally:
        os.close(pipe)
