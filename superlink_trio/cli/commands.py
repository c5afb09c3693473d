"""The commands: `superlink-trio`, `driver-api` and `fleet-api` that run one side each, and tools.

Whatever is slow to import waits until it is needed, so that `--help` and a faulty command line
answer at once.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from superlink_trio.cli import systemd
from superlink_trio.cli.arguments import PRINT_CONFIG, read
from superlink_trio.cli.programs import (
    COMMANDS,
    DRIVER_API,
    FLEET_API,
    SIDES,
    SUPERLINK,
    Program,
    checking,
    worker_pids,
    workers,
)
from superlink_trio.cli.running import OK, USAGE, run
from superlink_trio.config import Settings, SuperLinkConfig, build
from superlink_trio.config.reading import did_you_mean, suggestion

if TYPE_CHECKING:
    from superlink_trio.logs.live import Terminal
    from superlink_trio.simulation.progress import Display

_log = logging.getLogger(__name__)

_TOOLS = {
    "backup": "tools",
    "inspect": "tools",
    "status": "status",
    "probe": "probe",
    "completion": "completion",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command, or a SuperLink where none is named, and answer the exit status.

    `argv` is the command line without the program's name, `sys.argv` by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0].startswith("-"):
        return _serve(SUPERLINK, argv)
    command, *words = argv
    if command == "help":
        return main([*words[:1], "--help"])
    if command in SIDES:
        return _serve(SIDES[command], words)
    if command == "check":
        return _check(words)
    if command in _TOOLS:
        module = import_module(f"superlink_trio.cli.{_TOOLS[command]}")
        run_tool: Callable[[Sequence[str]], int] = getattr(module, command)
        return run_tool(words)
    hint = did_you_mean(suggestion(command, COMMANDS))
    return _refuse(SUPERLINK, [f"{command}: no such command{hint}"], "--help lists the commands")


def driver_api() -> int:
    """Run the Driver API alone and answer the exit status."""
    return _serve(DRIVER_API, sys.argv[1:])


def fleet_api() -> int:
    """Run the Fleet API alone and answer the exit status."""
    return _serve(FLEET_API, sys.argv[1:])


def _serve(program: Program, argv: Sequence[str]) -> int:
    manager = systemd.Manager.of(os.environ)
    inherited = systemd.take_sockets(os.environ)

    def reread() -> tuple[Settings, SuperLinkConfig, systemd.Sockets]:
        settings = read(program, argv)
        sockets = systemd.adopt(settings, inherited, program.apis)
        return settings, build(settings, program.apis), sockets

    settings, config, sockets = reread()
    if PRINT_CONFIG in argv:
        from superlink_trio.cli.effective import effective

        options = filter(program.has, settings.table.options.values())
        sys.stdout.write(effective(options, settings, config))
    if settings.faults:
        return _refuse(program, settings.faults)
    if PRINT_CONFIG in argv:
        return OK

    from superlink_trio.cli.reloading import Reloading
    from superlink_trio.logs import rendering

    terminal = _terminal(settings, config)
    rendering.configure(
        settings.get("log_level") or "info", settings.get("log_format") or "text", terminal
    )
    for warning in settings.warnings:
        _log.warning(warning)
    display = None if terminal is None else _display(terminal)
    reloading = Reloading.of(lambda: reread()[:2], settings)
    runner = partial(program.runner, display, sockets)
    run_it = partial(run, config=config, reload=reloading, manager=manager)
    if config.workers > 1:
        runner = partial(workers, program, settings.get("log_format") or "text", sockets)
        return run_it(runner, others=worker_pids)
    return run_it(runner)


def _check(argv: Sequence[str]) -> int:
    side = SIDES.get(argv[0]) if argv else None
    program = checking(side or SUPERLINK)
    settings = read(program, argv[1:] if side else argv)
    config = build(settings, program.apis)

    from superlink_trio.cli.trial import try_out

    found = try_out(settings, config, program.apis)
    for warning in settings.warnings:
        sys.stderr.write(f"{program.name}: warning: {warning}\n")
    if settings.faults:
        return _refuse(program, settings.faults)
    sys.stdout.write(f"{program.name}: the configuration is sound: {found}\n")
    return OK


def _refuse(
    program: Program, faults: Iterable[str], hint: str = "--help-all lists the options"
) -> int:
    for fault in faults:
        sys.stderr.write(f"{program.name}: error: {fault}\n")
    sys.stderr.write(f"{program.name}: nothing was started; {hint}\n")
    return USAGE


def _terminal(settings: Settings, config: SuperLinkConfig) -> Terminal | None:
    """Give the terminal where a simulation is watched, None where there is nobody to watch."""
    if config.fleet_api_type != "vce" or settings.get("log_format") == "json":
        return None
    if not sys.stderr.isatty() or os.environ.get("TERM") in (None, "dumb", "unknown"):
        return None
    # What draws takes a tenth of a second to import.
    from superlink_trio.logs.live import Terminal

    return Terminal(sys.stderr)


def _display(terminal: Terminal) -> Display:
    from superlink_trio.simulation.display import show

    return partial(show, terminal)
