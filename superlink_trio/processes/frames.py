"""Messages between the SuperLink and the processes that it has started.

A frame is a pickled message behind its length (u32, big-endian): nothing large. Both ends are of
this package and this user, one has started the other, and nobody else can reach the socket between
them: that is why pickles are safe here.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import trio  # a worker of a simulation does without

_LENGTH = struct.Struct("!I")


def pack(message: object) -> bytes:
    """Make a frame of a message."""
    pickled = pickle.dumps(message)
    return _LENGTH.pack(len(pickled)) + pickled


def read(file: BinaryIO) -> Any:
    """Read a message from a file that blocks. Raises EOFError where there is none."""
    length = file.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        raise EOFError
    return pickle.load(file)


class Receiver:
    """Takes messages out of a stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._received = bytearray()

    async def receive(self) -> Any:
        """Give the next message. Raises EOFError where there is none, trio.BrokenResourceError.

        If cancelled, nothing is lost.
        """
        await self._fill(_LENGTH.size)
        [length] = _LENGTH.unpack_from(self._received)
        end = _LENGTH.size + length
        await self._fill(end)
        message = pickle.loads(memoryview(self._received)[_LENGTH.size : end])
        del self._received[:end]
        return message

    async def _fill(self, size: int) -> None:
        while len(self._received) < size:
            chunk = await self._stream.receive_some(max(65536, size - len(self._received)))
            if not chunk:
                raise EOFError
            self._received += chunk
