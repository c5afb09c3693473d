"""Environments with unmodified Flower releases, for tests and benchmarks that need real peers.

Each release has a virtual environment of its own in the user's cache folder, made on first use.
Several processes may ask at once, and one that is interrupted leaves nothing that is taken for
ready: an environment counts only with its marker, which is written last and under a lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

VERSIONS = ("1.8.0", "1.9.0", "1.10.0", "1.11.1")

# Newer Pythons have no wheels for the numpy < 2 that these releases need, or for the Ray of 1.9's
# `flower-simulation`.
_PYTHONS = ("3.12", "3.11")
_PYTHONS_OF_SIMULATION = ("3.11",)
_CONSTRAINTS = Path(__file__).with_name("peers-constraints.txt")
_BESIDE = Path(__file__).with_name("peers-beside.txt")
_SIMULATION = Path(__file__).with_name("peers-simulation.txt")
# Runs at every start of the environment's interpreter, whoever starts it.
_TELEMETRY_OFF = 'import os; os.environ["FLWR_TELEMETRY_ENABLED"] = "0"\n'


class NoPeer(Exception):
    """A peer's environment cannot be made; the message says why and what to do."""


class NoPython(NoPeer):
    """There is no Python on this machine that the release runs on."""


def interpreter(version: str, *, beside: bool = False, simulation: bool = False) -> Path:
    """Give the Python of the environment that holds `flwr[rest]` in this version.

    With `beside` the environment holds what this package needs as well, so that both can be
    imported by one program: this package from a checkout on PYTHONPATH. With `simulation` it holds
    what 1.9's `flower-simulation` needs. Not both: each has a Ray of its own.

    Makes the environment when there is none yet, or when its pins have changed: that needs
    PyPI and takes about half a minute. Flower's telemetry is off in it.

    Raises NoPython when there is no Python to build on, NoPeer when the version is none of
    `VERSIONS` or when pip fails.
    """
    if version not in VERSIONS:
        raise NoPeer(f"flwr {version} is no peer of this project: {', '.join(VERSIONS)} are")
    base, python = _base_python(_PYTHONS_OF_SIMULATION if simulation else _PYTHONS)
    kind = "-beside" if beside else "-simulation" if simulation else ""
    more = _BESIDE if beside else _SIMULATION if simulation else None
    folder = cache_folder() / f"flwr-{version}{kind}-py{python}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    requirements = [f"flwr[rest]=={version}", *(["-r", str(more)] if more else [])]
    contents = f"{requirements[0]}\n{_CONSTRAINTS.read_text()}{_TELEMETRY_OFF}"
    if more:
        contents += more.read_text()
    with _locked(folder.parent / f"{folder.name}.lock") as lock:
        if not _is_ready(folder, contents):
            _make(folder, base, requirements, lock)
            _marker(folder).write_text(contents)
    return _interpreter_in(folder)


def _base_python(versions: Sequence[str]) -> tuple[str, str]:
    """Find a Python to build on: its path and its version, such as 3.11."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running in versions:
        return sys.executable, running
    for version in versions:
        path = shutil.which(f"python{version}")
        # Version managers put stand-ins on the path for Pythons that are not there.
        if path is not None and _runs(path):
            return path, version
    raise NoPython(
        f"Flower {VERSIONS[0]} to {VERSIONS[-1]} need Python {' or '.join(reversed(versions))}: "
        f"this is {running}, and none of them is on the PATH"
    )


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0


def cache_folder() -> Path:
    """Give where this user keeps what takes long to fetch or to build."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "superlink-trio" / "peers"


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    # The kernel lets go of it when all who have the file open have ended, however they end.
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _is_ready(folder: Path, contents: str) -> bool:
    marker = _marker(folder)
    # A link to a Python that has been removed since does not exist.
    return marker.exists() and marker.read_text() == contents and _interpreter_in(folder).exists()


def _make(folder: Path, base: str, requirements: Sequence[str], lock: int) -> None:
    print(f"making {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(base, "-m", "venv", str(folder), lock=lock)
    python = str(_interpreter_in(folder))
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    _run(*pip, "install", "--constraint", str(_CONSTRAINTS), *requirements, lock=lock)
    [site_packages] = folder.glob("lib/python*/site-packages")
    (site_packages / "telemetry_off.pth").write_text(_TELEMETRY_OFF)


def _run(*command: str, lock: int) -> None:
    # Standard output is for the interpreters' paths alone. A pip that has lost its parent still
    # writes to the environment: it keeps the lock until it ends.
    if subprocess.run(command, stdout=sys.stderr, pass_fds=[lock]).returncode != 0:
        raise NoPeer(f"failed: {' '.join(command)}")


def _marker(folder: Path) -> Path:
    return folder / "ready"


def _interpreter_in(folder: Path) -> Path:
    return folder / "bin" / "python"
