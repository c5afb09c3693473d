"""What of an app's directory goes to other machines: its Python files, and nothing else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def stage(directory: Path, to: Path) -> Path:
    """Copy the Python files below a directory, in their places, and give `to`.

    Left out are data files, which nodes read where they lie, hidden directories, and virtual
    environments.
    """
    to.mkdir(parents=True)
    for place, directories, files in os.walk(directory):
        here = Path(place)
        directories[:] = [
            name
            for name in directories
            if not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        ]
        for name in files:
            if name.endswith(".py"):
                target = to / here.relative_to(directory) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(here / name, target)
    return to
