from __future__ import annotations

import os
from typing import Any

import attrs
import pytest

from superlink_trio import __version__
from superlink_trio.cli.ready import ready_fields, ready_line
from superlink_trio.config import Address, SuperLinkConfig

LOCALHOST = Address("localhost", 9091, bound=[Address("127.0.0.1", 9091), Address("::1", 9091)])
ANYWHERE = Address("0.0.0.0", 9092, bound=[Address("0.0.0.0", 9092)])
HERE = Address("127.0.0.1", 8000)
FILES = ("ca", "cert", "key")
KEYS = ("nodes", "key", "key.pub")


@attrs.frozen
class Link:
    driver_address: Address | None = LOCALHOST
    fleet_address: Address | None = ANYWHERE
    flower_address: Address | None = None
    control_address: Address | None = None
    control_grpc_address: Address | None = None
    admin_address: Address | None = None


DRIVER = "Driver API on localhost:9091 (127.0.0.1:9091 and [::1]:9091)"
END = f"version {__version__}, pid {os.getpid()}"


@pytest.mark.parametrize(
    ("values", "link", "said"),
    [
        (
            {"insecure": True},
            Link(),
            f"{DRIVER} without TLS, Fleet API on 0.0.0.0:9092 without TLS (gRPC, no node "
            f"authentication), state in memory",
        ),
        (
            {
                "certificates": FILES,
                "driver_client_ca": "ca.pem",
                "require_client_authentication": KEYS,
                "database": "state.db",
                "workers": 1,
            },
            Link(),
            f"{DRIVER} over TLS with client certificates, Fleet API on 0.0.0.0:9092 over TLS "
            f"(gRPC, only nodes with a listed key), state in state.db",
        ),
        (
            {"insecure": True, "fleet_api_type": "rest", "ssl_certfile": "c", "ssl_keyfile": "k"},
            Link(driver_address=None, admin_address=Address("127.0.0.1", 9190)),
            "Fleet API on 0.0.0.0:9092 over TLS (REST, no node authentication), "
            "admin on 127.0.0.1:9190 without TLS, state in memory",
        ),
        (
            {"fleet_api_type": "vce", "num_supernodes": 10},
            Link(fleet_address=None),
            f"{DRIVER} without TLS, 10 simulated nodes, state in memory",
        ),
        ({}, Link(None, None), "no port is open, state in memory"),
        (
            {"port": 8000},
            Link(None, None, flower_address=HERE),
            "Flower 1.35 and later on 127.0.0.1:8000 without TLS (flwr of this machine only), "
            "state in memory",
        ),
        (
            {"port": 8000, "insecure": True, "control_token_file": "tokens"},
            Link(None, None, HERE, control_address=ANYWHERE, control_grpc_address=ANYWHERE),
            "Flower 1.35 and later on 127.0.0.1:8000 without TLS, Control API on 0.0.0.0:9092 "
            "without TLS (flwr with a token), Control API over gRPC on 0.0.0.0:9092 without TLS "
            "(flwr with a token), state in memory",
        ),
    ],
)
def test_the_line_says_what_listens_and_how(values: dict[str, Any], link: Link, said: str) -> None:
    assert ready_line(SuperLinkConfig(**values), link) == f"ready: {said}, {END}"


def test_machines_get_every_address_and_the_limits() -> None:
    config = SuperLinkConfig(
        certificates=FILES, require_client_authentication=KEYS, max_nodes=7, database="state.db"
    )
    fields = ready_fields(config, Link())
    assert fields == {
        "version": __version__,
        "pid": os.getpid(),
        "driver_address": "localhost:9091",
        "driver_listens_on": ["127.0.0.1:9091", "[::1]:9091"],
        "driver_tls": "TLS",
        "fleet_address": "0.0.0.0:9092",
        "fleet_listens_on": ["0.0.0.0:9092"],
        "fleet_tls": "TLS",
        "fleet_api_type": "grpc-rere",
        "node_authentication": True,
        "flower_address": None,
        "control_address": None,
        "control_grpc_address": None,
        "admin_address": None,
        "database": "state.db",
        "workers": 1,
        "max_nodes": 7,
        "max_message_size": config.max_message_size,
        "max_connections": config.max_connections,
        "max_calls": config.max_calls,
        "max_stored_size": None,
    }


def test_an_api_that_is_not_served_has_no_fields_but_its_address() -> None:
    fields = ready_fields(SuperLinkConfig(), Link(fleet_address=None))
    assert fields["fleet_address"] is None
    assert not {"fleet_tls", "node_authentication"} & fields.keys()
