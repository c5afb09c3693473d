"""Other processes over the same file: told of a commit by a datagram, not by polling.

Each process has a Unix datagram socket, whose path stands in the file. What changed is in the
file too (`superlink_news`); the datagram only says "look". So one that does not fit into a full
queue may be dropped: who has not read the earlier ones yet will look anyway.
"""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress

import trio

from superlink_trio.state.interface import CannotOpen

# Bytes of a Unix socket's path on the narrowest platform (macOS), and its end.
_LONGEST_PATH = 103


def bind(database: str) -> socket.socket:
    """Open this process's socket, beside the database or, if that path is too long, elsewhere."""
    name = f".superlink-{secrets.token_hex(6)}"
    path = os.path.abspath(database) + name
    if len(os.fsencode(path)) > _LONGEST_PATH:
        path = os.path.join(tempfile.gettempdir(), name)
    mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        mailbox.bind(path)
        mailbox.setblocking(False)
    except OSError as error:
        mailbox.close()
        raise CannotOpen(
            f"The database {database} cannot be shared: no socket can be made at {path} "
            f"({error.strerror}); check the permissions of the folder"
        ) from error
    return mailbox


def unbind(mailbox: socket.socket) -> None:
    """Close a socket and remove its path."""
    path = mailbox.getsockname()
    mailbox.close()
    with suppress(FileNotFoundError):
        os.unlink(path)


def is_alive(path: str) -> bool:
    """Say whether a process listens at this path; remove the path if none does.

    Where that cannot be told, for want of a permission, it is taken for alive: what it has under
    way must not be given to anybody else.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            return False
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return False
        except OSError:
            return True
    return True


def notify(mailbox: socket.socket, others: Iterable[tuple[int, str]]) -> list[int]:
    """Tell others to look; give the ids of those that have ended."""
    ended = []
    for process, path in others:
        try:
            mailbox.sendto(b"!", path)
        except (FileNotFoundError, ConnectionRefusedError):
            ended.append(process)
        except OSError:
            # Its queue is full: it will look. Or it cannot be reached: it looks by itself at times.
            continue
    return ended


async def next_notice(mailbox: socket.socket) -> None:
    """Return when another process said that something changed."""
    await trio.lowlevel.wait_readable(mailbox)
    with suppress(BlockingIOError):
        while True:
            mailbox.recv(16)
