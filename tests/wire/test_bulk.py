from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from superlink_trio.wire.bulk import ENOUGH, HUGE, _find_trim, give_back

_LIBRARY = ctypes.CDLL(None)
_PIECE = 64 * 1024  # gRPC reads in such; the C library maps larger ones one by one


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


@pytest.mark.skipif(not hasattr(_LIBRARY, "malloc_trim"), reason="only glibc can be asked")
async def test_what_a_message_took_is_given_back() -> None:
    await give_back(ENOUGH)  # what other tests have left
    _LIBRARY.malloc.restype = ctypes.c_void_p
    _LIBRARY.free.argtypes = [ctypes.c_void_p]
    pieces = [_LIBRARY.malloc(_PIECE) for _ in range(1000)]
    for piece in pieces:
        ctypes.memset(piece, 1, _PIECE)
    full = _resident()
    # The last one, still in use, keeps the library from returning those before it by itself.
    for piece in pieces[:-1]:
        _LIBRARY.free(piece)
    for _ in range(100):
        await give_back(HUGE - 1)
    await give_back(HUGE)
    assert _resident() > full - 10 * _PIECE
    await give_back(ENOUGH - HUGE)
    assert _resident() < full - 900 * _PIECE
    _LIBRARY.free(pieces[-1])


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_TRIM_THRESHOLD_": "268435456"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=268435456"},
    ],
)
def test_who_has_said_how_much_to_keep_keeps_it(environment: dict[str, str]) -> None:
    assert _find_trim(environment) is None
