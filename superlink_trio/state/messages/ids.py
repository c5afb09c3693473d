"""Ids of nodes, runs and their like in Flower 1.23 and later: unsigned."""

from __future__ import annotations

import secrets
from collections.abc import Container

from superlink_trio.state.messages.interface import NewRun
from superlink_trio.wire.messages import RunRecord

# 0 is nobody, 1 is the server's own.
_RESERVED = range(2)


def draw_new_id(taken: Container[int] = ()) -> int:
    """Draw an unsigned 64-bit id that is not in use."""
    drawn = 0
    while drawn in _RESERVED or drawn in taken:
        # 63 bits: whoever reads it as a signed number gets the same.
        drawn = secrets.randbits(63)
    return drawn


def new_run_record(new: NewRun, now: float, taken: Container[int] = ()) -> RunRecord:
    """Give a run its ids."""
    return RunRecord(
        run_id=draw_new_id(taken),
        task_id=draw_new_id(),
        series_id=new.series_id or draw_new_id(),
        fab_id=new.fab_id,
        fab_version=new.fab_version,
        fab_hash=new.fab.hash,
        override_config=dict(new.override_config),
        pending_at=now,
        simulation=new.simulation,
    )


def to_signed(unsigned: int) -> int:
    """Give the signed 64-bit number of the same bits, as databases have them."""
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


def to_unsigned(signed: int) -> int:
    """Give the unsigned 64-bit number of the same bits."""
    return signed + 2**64 if signed < 0 else signed
