"""What the command line runs. Whatever is slow to import waits until it is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import attrs

from superlink_trio.cli.running import Link, Runner
from superlink_trio.cli.systemd import Sockets
from superlink_trio.config import Apis, Option

if TYPE_CHECKING:
    from superlink_trio.simulation.progress import Display

COMMANDS: Mapping[str, str] = {
    "driver-api": "run the Driver API alone, over a shared database",
    "fleet-api": "run the Fleet API alone, over a shared database",
    "check": "try a configuration, and start nothing",
    "backup": "copy a database file, in use or not",
    "inspect": "tell what is in a database",
    "status": "tell how a running SuperLink is doing",
    "probe": "take a task through a running SuperLink and back",
    "completion": "write what bash or zsh needs to complete commands",
    "help": "explain a command",
}
"""The first words of a command line, and what they are for; without one a SuperLink is run."""


@attrs.frozen(kw_only=True)
class Program:
    """A command that is configured by options."""

    name: str
    apis: Apis
    about: str
    runner: Callable[[Display | None, Sockets], Runner]
    """Imports what runs it; the display is for a simulation."""
    serves: bool = True
    """Whether it is run at all, not only its configuration tried."""

    def has(self, option: Option) -> bool:
        """Whether the command line of this program takes the option."""
        return bool(option.apis & self.apis)


def _superlink(display: Display | None, sockets: Sockets) -> Runner:
    from superlink_trio.superlink import run_superlink

    return partial(run_superlink, display=display, sockets=sockets)


def _driver_api(_: Display | None, sockets: Sockets) -> Runner:
    from superlink_trio.superlink import run_driver_api

    return partial(run_driver_api, sockets=sockets)


def _fleet_api(display: Display | None, sockets: Sockets) -> Runner:
    from superlink_trio.superlink import run_fleet_api

    return partial(run_fleet_api, display=display, sockets=sockets)


def workers(program: Program, log_format: Literal["text", "json"], sockets: Sockets) -> Runner:
    """Give what runs a program in as many processes as its config says."""
    from superlink_trio.logs import rendering
    from superlink_trio.processes.children import python
    from superlink_trio.workers.messages import LogSettings
    from superlink_trio.workers.team import run_workers

    def log(pipe: int) -> LogSettings:
        return LogSettings(
            level=rendering.level(),
            format=log_format,
            coloured=sys.stderr.isatty(),
            pipe=pipe,
        )

    return partial(
        run_workers,
        program.apis,
        command=lambda number: python(
            "superlink_trio.cli.worker", f"{program.name} (worker {number})"
        ),
        log=log,
        sockets=sockets,
    )


def worker_pids(link: Link) -> Sequence[int]:
    """Give the ids of the processes that serve for a SuperLink of several."""
    from superlink_trio.workers.team import Team

    assert isinstance(link, Team), "this one serves by itself"
    return [place.pid for place in link.places if place.pid is not None]


SUPERLINK = Program(
    name="superlink-trio",
    apis=Apis.BOTH,
    about="Run a SuperLink: the Driver API and the Fleet API in one process.",
    runner=_superlink,
)
DRIVER_API = Program(
    name="superlink-trio driver-api",
    apis=Apis.DRIVER,
    about="Run the Driver API alone; the Fleet API runs elsewhere, over the same database.",
    runner=_driver_api,
)
FLEET_API = Program(
    name="superlink-trio fleet-api",
    apis=Apis.FLEET,
    about="Run the Fleet API alone; the Driver API runs elsewhere, over the same database.",
    runner=_fleet_api,
)
SIDES: Mapping[str, Program] = {"driver-api": DRIVER_API, "fleet-api": FLEET_API}

CHECK_ABOUT = (
    "Try a configuration without starting anything: read all its sources and files, look into the "
    "database, bind each address and let go of it. Every fault is listed, and the exit status is "
    "2; it is 0 where there is none. A side that runs alone is named first: check driver-api, "
    "check fleet-api."
)


def checking(program: Program) -> Program:
    """Make the command that tries a program's configuration."""
    name = program.name.replace(SUPERLINK.name, f"{SUPERLINK.name} check")
    return attrs.evolve(program, name=name, about=CHECK_ABOUT, serves=False)
