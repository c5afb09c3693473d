"""gRPC under Trio: an asyncio loop that Trio runs, and grpc.aio servers as supervised services."""

from __future__ import annotations

from superlink_trio.transport.grpc.credentials import fixed_credentials, server_credentials
from superlink_trio.transport.grpc.loop import TrioEventLoop, open_loop
from superlink_trio.transport.grpc.server import GrpcOptions, serve_grpc
from superlink_trio.transport.grpc.service import GrpcService

__all__ = [
    "GrpcOptions",
    "GrpcService",
    "TrioEventLoop",
    "fixed_credentials",
    "open_loop",
    "serve_grpc",
    "server_credentials",
]
