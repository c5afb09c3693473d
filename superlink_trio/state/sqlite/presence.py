"""Processes over one file: a lock tells that one is alive, a datagram that it should look.

Each process has a name. It stands in the file, and beside the file are two things called by it. The
one is a file on which the process has a lock: the kernel lets go of it when the process ends,
however that happens, and shows it to everybody who sees the folder, from another container too. The
other is a Unix datagram socket. What changed is in the file (`superlink_news`), the datagram only
says "look". Who does not get one looks by itself a little later.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import socket
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import trio

from superlink_trio.state.interface import CannotOpen, StateUnavailable

# Bytes of a Unix socket's path on the narrowest platform (macOS), and its end.
_LONGEST_PATH = 103

_log = logging.getLogger(__name__)


class Presence:
    """This process over a database file, as the others see it. Raises CannotOpen."""

    def __init__(self, database: str) -> None:
        self.name = secrets.token_hex(6)
        self._database = os.path.realpath(database)
        self._path = _lock_path(self._database, self.name)
        try:
            self._lock = _lock(self._path, like=self._database)
        except OSError as error:
            raise CannotOpen(self._not_locked(error)) from error
        self._mailbox = self._open_mailbox()

    def keep(self) -> None:
        """Lock another file where somebody has removed ours. Raises StateUnavailable.

        To be called inside a transaction that may write: nobody judges who is alive meanwhile.
        """
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._lock)):
                return
        try:
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            lock = _lock(self._path, like=self._database)
        except OSError as error:
            raise StateUnavailable(self._not_locked(error)) from error
        os.close(self._lock)
        self._lock = lock

    def notify(self, others: Iterable[str]) -> bool:
        """Let others, by their names, look; say whether all could be reached."""
        unreached = [name for name in others if not self._notify(name)]
        return not unreached

    async def next_notice(self) -> None:
        """Return when another process said that something changed."""
        if self._mailbox is None:
            await trio.sleep_forever()
        else:
            await trio.lowlevel.wait_readable(self._mailbox)
            with suppress(BlockingIOError):
                while True:
                    self._mailbox.recv(16)

    def close(self) -> None:
        """Be gone, and leave nothing beside the database."""
        forget(self._database, self.name)
        os.close(self._lock)
        if self._mailbox is not None:
            self._mailbox.close()

    def _open_mailbox(self) -> socket.socket | None:
        path = _socket_path(self._database, self.name)
        mailbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with _address(path) as address:
                mailbox.bind(address)
            os.chmod(path, _mode(self._database))
            mailbox.setblocking(False)
        except OSError as error:
            mailbox.close()
            _log.info(
                "Other processes over the database %s can only be heard of seconds late, no socket "
                "can be made at %s (%s): shorten its name, or check the folder's permissions",
                *(self._database, path, error.strerror or error),
            )
            return None
        return mailbox

    def _notify(self, name: str) -> bool:
        if self._mailbox is None:
            return False
        try:
            with _address(_socket_path(self._database, name)) as address:
                self._mailbox.sendto(b"!", address)
        except BlockingIOError:
            return True  # Its queue is full: it will look.
        except OSError:
            return False
        return True

    def _not_locked(self, error: OSError) -> str:
        return (
            f"The database {self._database} cannot be shared: {self._path} cannot be locked "
            f"({error.strerror}); check the permissions of the folder, and use a local disk"
        )


def is_alive(database: str, name: str) -> bool:
    """Say whether the process of this name still runs.

    Where that cannot be told, for want of a permission, it is taken for alive: what it has under
    way must not be given to anybody else.
    """
    if os.path.isabs(name):
        return _answers(name)
    try:
        descriptor = os.open(_lock_path(os.path.realpath(database), name), os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def forget(database: str, name: str) -> None:
    """Remove what a process of this name has beside the database."""
    database = os.path.realpath(database)
    if os.path.isabs(name):
        paths = [name]
    else:
        paths = [_socket_path(database, name), _lock_path(database, name)]
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


def _answers(path: str) -> bool:
    """Say whether somebody listens at a socket: all that there is of releases without locks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def _lock_path(database: str, name: str) -> str:
    return f"{database}.superlink-{name}"


def _socket_path(database: str, name: str) -> str:
    return f"{_lock_path(database, name)}.socket"


def _lock(path: str, *, like: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.fchmod(descriptor, _mode(like))
        # Not fcntl's locks: those go as soon as anything in the process closes the same file.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        os.unlink(path)
        raise
    return descriptor


def _mode(database: str) -> int:
    """Give the permissions of a file: who may use the database may use what is beside it."""
    return stat.S_IMODE(os.stat(database).st_mode)


@contextmanager
def _address(path: str) -> Iterator[str]:
    """Give what a socket can be addressed by, also where its path is too long for that."""
    if len(os.fsencode(path)) <= _LONGEST_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)
