"""`superlink-trio probe`: goes through a SuperLink as clients do, and says how long it took."""

from __future__ import annotations

import argparse
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from superlink_trio.cli.probing.steps import Failed, Steps, tell
from superlink_trio.cli.probing.tasks import ADVICE as TASK_ADVICE
from superlink_trio.cli.probing.tasks import TaskProbe
from superlink_trio.cli.status import NotTold, overview_at
from superlink_trio.config import Address
from superlink_trio.logs.wording import described, harmless
from superlink_trio.transport.client import Begin, Send, Trust, at_once, over_grpc, over_http

if TYPE_CHECKING:
    from superlink_trio.cli.probing.nodes import NodeProbe


def probe(argv: Sequence[str]) -> int:
    """Run the command and answer the exit status: 0 when all went well."""
    parser = argparse.ArgumentParser(prog="superlink-trio probe")
    fill_probe(parser)
    given = parser.parse_args(argv)
    if not given.superlink and not given.driver:
        parser.error("say where the SuperLink listens: --driver and --fleet, --superlink, or all")
    if bool(given.driver) is not bool(given.fleet):
        parser.error("--driver and --fleet go together: a task goes from one to the other")
    deadline = time.monotonic() + given.timeout
    try:
        trust = Trust(
            roots=_contents(given.root_certificates),
            certificate=_contents(given.client_certificate),
            key=_contents(given.client_key),
        )
        tasks = _tasks(given, trust, deadline) if given.driver else None
        nodes = _nodes(given, trust, deadline) if given.superlink else None
        admin = None if given.admin_address is None else Address.parse(given.admin_address)
    except (OSError, ValueError) as error:
        parser.error(described(error))
    # However it is ended, its nodes sign off.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        told = list(_run(tasks, nodes))
        whose = "" if admin is None else f" from superlink-trio {overview_at(admin)['version']}"
    except (Failed, NotTold) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"{parser.prog}: {harmless(line)}\n")
        return 1
    tell("all of it", sum(probe.steps.took for probe in (tasks, nodes) if probe is not None))
    sys.stdout.writelines(f"{line.format(whose=whose)}\n" for line in told)
    return 0


def _run(tasks: TaskProbe | None, nodes: NodeProbe | None) -> Iterator[str]:
    """Probe, and say what it was good for. Raises Failed."""
    if tasks is not None:
        run_id = tasks.run()
        yield f"A task came back{{whose}}; run {run_id}, which it belonged to, stays in the state."
    if nodes is not None:
        nodes.run()
        yield "A SuperNode had its answers{whose}; nothing of it stays."


def fill_probe(parser: argparse.ArgumentParser) -> None:
    """Let a parser take what `superlink-trio probe` takes."""
    parser.description = (
        "Take one small task through a running SuperLink (--driver and --fleet: open a run, "
        "register a node, push a task to it, pull it, answer, pull the answer, sign the node off), "
        "or a node of today's Flower (--superlink: register, activate, heartbeat, a held pull, "
        "deactivate, unregister). Tells how long each step took; the exit status is 0 when all "
        "went well, 1 when it did not."
    )
    parser.epilog = (
        "The run stays in the state: runs cannot be deleted. The node is online for the few "
        "milliseconds between its pull and its end; a driver that asks for nodes just then may "
        "choose it, and gets an error for it in place of an answer; so may a run of today's "
        "Flower with a SuperNode, of which nothing stays. A SuperLink whose nodes "
        "authenticate refuses the probe's node, which has no key."
    )
    parser.add_argument("--driver", metavar="HOST:PORT", help="where the Driver API listens")
    parser.add_argument(
        "--fleet",
        metavar="HOST:PORT",
        help="where the Fleet API listens; http://HOST:PORT or https://HOST:PORT for REST",
    )
    parser.add_argument(
        "--superlink",
        metavar="HOST:PORT",
        help="where today's Flower is served (--port of the SuperLink); http://HOST:PORT or "
        "https://HOST:PORT say whether it speaks TLS",
    )
    parser.add_argument(
        "--admin-address",
        metavar="HOST:PORT",
        help="where its admin surface listens, which tells its version",
    )
    parser.add_argument(
        "--root-certificates", type=Path, metavar="FILE", help="whom to trust, PEM; TLS with it"
    )
    parser.add_argument(
        "--client-certificate", type=Path, metavar="FILE", help="for a Driver API that wants one"
    )
    parser.add_argument(
        "--client-key", type=Path, metavar="FILE", help="the key that belongs to it"
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="for all steps together [default: 10]",
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: must be more than 0 and less than 3600")
    return seconds


def _contents(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _tasks(given: argparse.Namespace, trust: Trust, deadline: float) -> TaskProbe:
    return TaskProbe(
        driver=over_grpc(Address.parse(given.driver), "flwr.proto.Driver", trust),
        fleet=_fleet(given.fleet, attrs.evolve(trust, certificate=None, key=None)),
        steps=Steps(deadline=deadline, advice=TASK_ADVICE),
    )


def _fleet(text: str, trust: Trust) -> Send:
    if "://" not in text:
        return over_grpc(Address.parse(text), "flwr.proto.Fleet", trust)
    address, tls = _place(text, tls=False)
    return at_once(_over_http(address, trust, tls=tls, folder="/api/v0/fleet"))


def _nodes(given: argparse.Namespace, trust: Trust, deadline: float) -> NodeProbe:
    # What signs calls takes a tenth of a second to import.
    from superlink_trio.cli.probing.nodes import ADVICE, NodeProbe, Signer

    signer = Signer()
    address, tls = _place(given.superlink, tls=trust.roots is not None)
    fleet = _over_http(address, trust, tls=tls, folder="/v1/fleet", headers=signer.headers)
    return NodeProbe(fleet=fleet, signer=signer, steps=Steps(deadline=deadline, advice=ADVICE))


def _place(text: str, *, tls: bool) -> tuple[Address, bool]:
    """Read an address, or a URL; give it, and whether TLS is spoken there."""
    if "://" not in text:
        return Address.parse(text), tls
    url = urlsplit(text)
    if url.scheme not in ("http", "https"):
        raise ValueError(f"{text!r}: write HOST:PORT, http://HOST:PORT or https://HOST:PORT")
    return Address.parse(url.netloc), url.scheme == "https"


def _over_http(
    address: Address,
    trust: Trust,
    *,
    tls: bool,
    folder: str,
    headers: Callable[[], Mapping[str, str]] = dict,
) -> Begin:
    try:
        return over_http(address, trust, tls=tls, folder=folder, headers=headers)
    except ssl.SSLError as error:
        raise ValueError(f"--root-certificates: {described(error)}") from None
