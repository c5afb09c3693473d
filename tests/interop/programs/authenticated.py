"""The adding client with a key pair: `authenticated.py ADDRESS CA_CERT PRIVATE_KEY PUBLIC_KEY`.

For releases whose own launcher does not take keys. STEP is what it adds.
"""

from __future__ import annotations

import sys
from pathlib import Path

from adder import adder
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from flwr.client import start_client

address, ca, private, public = sys.argv[1:]
print("starting", flush=True)
start_client(
    server_address=address,
    client=adder,
    transport="grpc-rere",
    root_certificates=Path(ca).read_bytes(),
    authentication_keys=(
        load_ssh_private_key(Path(private).read_bytes(), None),
        load_ssh_public_key(Path(public).read_bytes()),
    ),
)
