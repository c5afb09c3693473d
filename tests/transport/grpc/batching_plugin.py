"""A pytest plugin that makes trio-asyncio's own tests run on our loop."""

from __future__ import annotations

import trio_asyncio  # type: ignore[import-untyped]  # ships no types
import trio_asyncio._loop  # type: ignore[import-untyped]

from superlink_trio.transport.grpc.loop import BatchingLoop

trio_asyncio.TrioEventLoop = trio_asyncio._loop.TrioEventLoop = BatchingLoop
