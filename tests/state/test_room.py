from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from superlink_trio.state import usual_room
from superlink_trio.state.room import memory_limits


@pytest.mark.parametrize("database", [":flwr-in-memory-state:", ":memory:"])
def test_memory_is_filled_by_half(database: str) -> None:
    found = usual_room(database)
    assert found.of == "half of the memory"
    assert 2**26 < found.size <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def test_a_file_may_fill_half_of_its_disk(tmp_path: Path) -> None:
    found = usual_room(str(tmp_path / "state.db"))
    total = shutil.disk_usage(tmp_path).total
    assert (found.size, found.of) == (total // 2, "half of the disk")
    assert usual_room(str(tmp_path / "missing" / "state.db")) == found, "opening it says why not"


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """Control groups of both versions; some limit the memory."""
    for path, text in {
        "memory.max": "max",
        "outer/memory.max": "4000000000",
        "outer/inner/memory.max": "max",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/job/memory.limit_in_bytes": "3000000000",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("groups", "limits"),
    [
        ("0::/outer/inner", [4000000000]),
        ("0::/outer/gone", [4000000000]),
        ("0::/../../outer", []),
        ("4:cpu,memory:/job\n0::/", [3000000000, 9223372036854771712]),
        ("7:cpu:/job", []),
        ("0::/", []),
    ],
)
def test_every_control_group_that_limits_memory_counts(
    mount: Path, groups: str, limits: list[int]
) -> None:
    own = mount / "own"
    own.write_text(groups + "\n")
    assert list(memory_limits(own, mount)) == limits


def test_there_may_be_no_control_groups(tmp_path: Path) -> None:
    assert list(memory_limits(tmp_path / "missing", tmp_path)) == []
