"""How much room there is where a store keeps its things."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import attrs

_CGROUPS = Path("/sys/fs/cgroup")


@attrs.frozen
class Room:
    """Bytes that a store may take where nobody says how many, and of what they are a part."""

    size: int
    of: str


def room_in_memory() -> Room:
    """Give half of the memory that this process may use."""
    return Room(min([_physical_memory(), *memory_limits()]) // 2, "half of the memory")


def room_on_disk(file: str) -> Room:
    """Give half of the disk that a file lies on, or will lie on."""
    for folder in Path(file).absolute().parents:
        # Where it is missing, opening the file will say so.
        if os.path.isdir(folder):
            break
    return Room(shutil.disk_usage(folder).total // 2, "half of the disk")


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_limits(own: Path = Path("/proc/self/cgroup"), mount: Path = _CGROUPS) -> Iterator[int]:
    """Give the limits of the control groups that this process is in, the outer ones too.

    `own` is the file that lists the groups, `mount` where their files are.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/memory.html
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return  # no Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            folder, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            folder, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = Path(path)
        for each in (group, *group.parents):
            try:
                text = (folder / each.relative_to("/") / name).read_text().strip()
            except (OSError, ValueError):
                continue  # seen from inside a container, the outer ones are not there
            if text.isdigit():
                yield int(text)
