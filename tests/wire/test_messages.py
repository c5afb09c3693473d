"""Nodes as apps and operators are told of them."""

from __future__ import annotations

import pytest

from superlink_trio.wire.messages import NodeRecord, iso, write_node

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("times", "status", "came_at"),
    [
        ({}, "registered", None),
        ({"activated_at": NOW - 5, "online_until": NOW + 55}, "online", NOW - 5),
        ({"activated_at": NOW - 90, "online_until": NOW - 30}, "offline", NOW - 90),
        ({"activated_at": NOW - 90, "deactivated_at": NOW - 80}, "offline", NOW - 90),
        ({"online_until": NOW + 55}, "online", NOW - 100),
        ({"online_until": NOW - 5}, "offline", NOW - 100),
        ({"deactivated_at": NOW - 5}, "offline", NOW - 100),
    ],
    ids=["new", "came", "silent", "left", "taken back", "taken back, silent", "taken back, left"],
)
def test_how_it_is_with_a_node(times: dict[str, float], status: str, came_at: float | None) -> None:
    node = NodeRecord(node_id=7, public_key=b"key", registered_at=NOW - 100, **times)  # type: ignore[arg-type]  # all of these are floats
    info = write_node(node, NOW)
    assert info.status == status
    assert info.last_activated_at == ("" if came_at is None else iso(came_at))
