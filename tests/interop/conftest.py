"""Unmodified Flower programs around a SuperLink, all of them real processes.

The programs run in the environments that `scripts/peers` makes. With INTEROP_SUPERLINK=1.11.1
(or another of its releases) in the environment the same tests run against Flower's own
SuperLink, all but those marked `beyond`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Mapping
from itertools import chain
from pathlib import Path

import pytest
from _peers import NoPython, interpreter
from interop.peers import REFERENCE, VERSIONS, Peers, open_peers
from interop.today import Today, open_today
from peering.processes import Program, SuperLink

# Of one test, as they are started.
_PROGRAMS = pytest.StashKey[list[list[Program]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "beyond(what): Flower's own SuperLink does this instead")


def pytest_runtest_setup(item: pytest.Item) -> None:
    beyond = item.get_closest_marker("beyond")
    if REFERENCE is not None and beyond is not None:
        pytest.skip(f"Flower {REFERENCE} {beyond.args[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for program in chain(*item.stash.setdefault(_PROGRAMS, [])):
            report.sections.append((f"output of {program.name}", "\n".join(program.lines)))
    return report


@pytest.fixture(scope="session")
def interpreters() -> Mapping[str, Path]:
    """The Python of each Flower release's environment."""
    try:
        return {version: interpreter(version) for version in VERSIONS}
    except NoPython as error:
        pytest.skip(str(error))


@pytest.fixture
async def peers(
    request: pytest.FixtureRequest, interpreters: Mapping[str, Path]
) -> AsyncIterator[Peers]:
    """Programs for one test; if it fails its report shows all they wrote."""
    async with open_peers(interpreters) as peers:
        request.node.stash.setdefault(_PROGRAMS, []).append(peers.programs)
        yield peers


@pytest.fixture
async def today(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Today]:
    """Programs of Flower 1.26 to 1.42 for one test; if it fails its report shows all they wrote.

    An environment that is not there yet is made when a program of it is started.
    """
    async with open_today(tmp_path) as today:
        request.node.stash.setdefault(_PROGRAMS, []).append(today.programs)
        yield today


@pytest.fixture
async def beside(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Today]:
    """The same, where this package, Flower 1.42 and Ray can be imported by one program."""
    async with open_today(tmp_path, beside=True) as today:
        request.node.stash.setdefault(_PROGRAMS, []).append(today.programs)
        yield today


@pytest.fixture
async def superlink(peers: Peers) -> SuperLink:
    """A SuperLink with its defaults."""
    return await peers.superlink()
