"""A gRPC client in a process of its own, to be killed, frozen, or to run out of time.

Usage: client.py ADDRESS METHOD [DEADLINE]. Writes the length of the answer, or the status.
"""

from __future__ import annotations

import sys

import grpc

address, method, *deadline = sys.argv[1:]
with grpc.insecure_channel(address, [("grpc.max_receive_message_length", -1)]) as channel:
    call = channel.unary_unary(method, None, None)
    try:
        answer = call(b"request", timeout=float(deadline[0]) if deadline else None)
    except grpc.RpcError as error:
        sys.stdout.write(error.code().name)
    else:
        sys.stdout.write(str(len(answer)))
