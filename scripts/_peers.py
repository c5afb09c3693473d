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
from dataclasses import dataclass, replace
from pathlib import Path

VERSIONS = ("1.8.0", "1.9.0", "1.10.0", "1.11.1")
"""Releases whose programs exchange tasks."""

TODAY = ("1.26.1", "1.36.0", "1.37.0", "1.42.0")
"""Releases whose programs exchange messages."""

_HERE = Path(__file__).parent
# Runs at every start of the environment's interpreter, whoever starts it.
_TELEMETRY_OFF = 'import os; os.environ["FLWR_TELEMETRY_ENABLED"] = "0"\n'


class NoPeer(Exception):
    """A peer's environment cannot be made; the message says why and what to do."""


class NoPython(NoPeer):
    """There is no Python on this machine that the release runs on."""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How environments are built. `more`: what is in them beside flwr."""

    pythons: tuple[str, ...]
    constraints: Path
    extra: str = ""
    more: Path | None = None


# Newer Pythons have no wheels for the numpy < 2 that the older releases need, or for the Ray of
# 1.9's `flower-simulation`.
_OLDER = _Kind(
    pythons=("3.12", "3.11"), constraints=_HERE / "peers-constraints.txt", extra="[rest]"
)
_KINDS = {
    "": _OLDER,
    "-beside": replace(_OLDER, more=_HERE / "peers-beside.txt"),
    "-simulation": replace(_OLDER, pythons=("3.11",), more=_HERE / "peers-simulation.txt"),
}
_TODAY = _Kind(pythons=("3.13", "3.12", "3.11"), constraints=_HERE / "peers-today.txt")
_KINDS_TODAY = {
    "": _TODAY,
    "-beside": replace(_TODAY, extra="[simulation]", more=_HERE / "peers-today-beside.txt"),
}


def interpreter(version: str, *, beside: bool = False, simulation: bool = False) -> Path:
    """Give the Python of the environment that holds `flwr` in this version.

    With `beside` the environment holds what this package needs as well, so that both can be
    imported by one program: this package from a checkout on PYTHONPATH. With `simulation` it holds
    what 1.9's `flower-simulation` needs. Not both: each has a Ray of its own.

    Of `TODAY`, 1.42 can be beside this package, with the Ray that its `flwr-simulation` needs.

    Makes the environment when there is none yet, or when its pins have changed: that needs
    PyPI and takes about half a minute. Flower's telemetry is off in it.

    Raises NoPython when there is no Python to build on, NoPeer when the version is none of
    `VERSIONS` or `TODAY`, or when pip fails.
    """
    name = "-beside" if beside else "-simulation" if simulation else ""
    peers = _peers(name)
    if version not in peers:
        raise NoPeer(f"flwr {version} is no peer of this project here: {', '.join(peers)} are")
    kind = peers[version]
    base, python = _base_python(version, kind.pythons)
    folder = cache_folder() / f"flwr-{version}{name}-py{python}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    requirement = f"flwr{kind.extra}=={version}"
    contents = f"{requirement}\n{kind.constraints.read_text()}{_TELEMETRY_OFF}"
    wanted = ["--constraint", str(kind.constraints), requirement]
    if kind.more is not None:
        wanted += ["-r", str(kind.more)]
        contents += kind.more.read_text()
    with _locked(folder.parent / f"{folder.name}.lock") as lock:
        if not _is_ready(folder, contents):
            _make(folder, base, wanted, lock)
            _marker(folder).write_text(contents)
    return _interpreter_in(folder)


def _peers(name: str) -> dict[str, _Kind]:
    """Give the releases that have such environments, and how these are built."""
    kinds = dict.fromkeys(VERSIONS, _KINDS[name])
    if name in _KINDS_TODAY:
        kinds |= dict.fromkeys(TODAY[-1:] if name else TODAY, _KINDS_TODAY[name])
    return kinds


def _base_python(version: str, pythons: Sequence[str]) -> tuple[str, str]:
    """Find a Python to build on: its path and its version, such as 3.11."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running in pythons:
        return sys.executable, running
    for python in pythons:
        path = shutil.which(f"python{python}")
        # Version managers put stand-ins on the path for Pythons that are not there.
        if path is not None and _runs(path):
            return path, python
    raise NoPython(
        f"Flower {version} needs Python {' or '.join(reversed(pythons))}: "
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


def _make(folder: Path, base: str, wanted: Sequence[str], lock: int) -> None:
    print(f"making {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    _run(base, "-m", "venv", str(folder), lock=lock)
    python = str(_interpreter_in(folder))
    pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input")
    _run(*pip, "install", *wanted, lock=lock)
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
