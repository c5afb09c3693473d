"""`superlink-trio status`: how a SuperLink is doing, read from its admin surface."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from superlink_trio.cli.picture import picture
from superlink_trio.config import Address
from superlink_trio.logs.wording import described, harmless

_VARIABLE = "SUPERLINK_ADMIN_ADDRESS"
_USUAL = "127.0.0.1:9190"

# Seconds that an answer may take, and between two of them.
_PATIENCE = 10.0
_INTERVAL = 2.0

_LARGEST = 16 * 1024**2


class NotTold(Exception):
    """There is no answer; says why, and what to do."""


def status(argv: Sequence[str]) -> int:
    """Run the command and answer the exit status: 0 when all is well."""
    parser = argparse.ArgumentParser(prog="superlink-trio status")
    fill_status(parser)
    given = parser.parse_args(argv)
    try:
        address = Address.parse(given.address)
    except ValueError as error:
        parser.error(str(error))
    try:
        if given.watch:
            return _watch(address)
        if given.tasks:
            sys.stdout.write(_read(address, "/tasks"))
            return 0
        document = overview_at(address)
    except NotTold as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    if given.json:
        sys.stdout.write(f"{json.dumps(document, indent=2)}\n")
    else:
        Console().print(picture(document))
    return 1 if document["faults"] else 0


def fill_status(parser: argparse.ArgumentParser) -> None:
    """Let a parser take what `superlink-trio status` takes."""
    parser.description = (
        "Tell how a SuperLink is doing that runs with --admin-address. The exit status "
        "is 0 when all is well, 1 when it is not or nothing answers."
    )
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        nargs="?",
        default=os.environ.get(_VARIABLE, _USUAL),
        help=f"its admin address [default: {_USUAL}; {_VARIABLE}]",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--watch", action="store_true", help="stay, and show it every other second")
    form.add_argument("--json", action="store_true", help="for machines: the document itself")
    form.add_argument(
        "--tasks", action="store_true", help="the task tree, and where each task waits"
    )


def overview_at(address: Address) -> dict[str, Any]:
    """Give the overview of the SuperLink whose admin surface is there. Raises NotTold."""
    text = _read(address, "/status")
    with suppress(ValueError):
        document = json.loads(text)
        if isinstance(document, dict) and "faults" in document:
            return document
    raise NotTold(
        f"what answers at {address} is no SuperLink's admin surface: name the address that "
        "--admin-address gave it"
    )


def _read(address: Address, path: str) -> str:
    """Give what is at a path. Raises NotTold."""
    connection = http.client.HTTPConnection(address.host, address.port, timeout=_PATIENCE)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(_LARGEST).decode(errors="replace")
    except ConnectionRefusedError:
        raise NotTold(
            f"nothing answers at {address}: start the SuperLink with --admin-address {address}, "
            "or name the address that it has"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        how = harmless(described(error).strip())
        raise NotTold(
            f"{address} does not answer as an admin surface does ({how}): name the address that "
            "--admin-address gave the SuperLink"
        ) from None
    finally:
        connection.close()
    if response.status != http.client.OK:
        said = harmless(body.strip()[:200])
        raise NotTold(f"{address}{path} answers {response.status}: {said}")
    return body


def _watch(address: Address) -> int:
    """Show how it is doing every other second until Ctrl-C; answer how it was last."""
    console, well = Console(), False
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        try:
            while True:
                shown: RenderableType
                try:
                    document = overview_at(address)
                    shown, well = picture(document), not document["faults"]
                except NotTold as error:
                    shown, well = Text(f"■ {error}", style="bold red"), False
                if console.is_terminal:
                    live.update(shown, refresh=True)
                else:
                    console.print(shown)
                time.sleep(_INTERVAL)
        except KeyboardInterrupt:
            return 0 if well else 1
