"""Files that hold certificates and keys, and what can be wrong with them.

Whoever reads several of them goes on after a fault, so that all faults are told at once.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from superlink_trio.logs import leaves

_log = logging.getLogger(__name__)

_LARGEST = 16 * 1024 * 1024
"""Bytes: a file that is larger was named by mistake."""


class FileFault(ValueError):
    """What is wrong with a file, and what to do about it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


def encrypted(path: Path, remedy: str) -> FileFault:
    """Give the fault of a private key that asks for a passphrase; `remedy` is a command."""
    return FileFault(
        path,
        "is encrypted, and a server has nobody to ask for the passphrase: write the key without "
        f"one ({remedy})",
    )


class Faults(list[FileFault]):
    """Every fault found so far."""

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Note the fault, or the group of them, that ends the block; it goes no further."""
        try:
            yield
        except FileFault as fault:
            self.append(fault)
        except ExceptionGroup as group:
            faults, rest = group.split(FileFault)
            if faults is not None:
                self.extend(fault for fault in leaves(faults) if isinstance(fault, FileFault))
            if rest is not None:
                raise rest from None

    def throw(self, message: str) -> None:
        """Raise an ExceptionGroup of the faults, if there are any."""
        if self:
            raise ExceptionGroup(message, list(self))


def read(path: Path, *, private: bool = False) -> bytes:
    """Read a whole file. Raises FileFault when that cannot be done.

    A `private` one that others than its owner may read or change is warned of.
    """
    try:
        # A pipe would be waited for, for ever; a device has no end.
        if path.exists() and not path.is_file():
            raise FileFault(path, "is no file")
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise FileFault(path, error.strerror or str(error)) from error
    if len(content) > _LARGEST:
        raise FileFault(path, "is too large for a file of certificates or keys")
    if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        _log.warning("Others may use the secret in %s: chmod 600 %s", path, path)
    return content
