from __future__ import annotations

import socket
from typing import Any

import pytest

from superlink_trio.config import Address, Apis, SuperLinkConfig
from superlink_trio.transport.listening import AddressError
from superlink_trio.workers.ports import open_ports


def config(**changes: Any) -> SuperLinkConfig:
    places = dict.fromkeys(
        ("driver_api_address", "grpc_rere_fleet_api_address", "rest_fleet_api_address"),
        "127.0.0.1:0",
    )
    return SuperLinkConfig(**{"insecure": True, "database": "state.db", **places, **changes})


async def test_a_port_of_grpc_is_held_for_those_who_share_it() -> None:
    async with open_ports(config(), Apis.BOTH, {}) as ports:
        chosen = ports.applied(config())
        assert 0 not in (chosen.driver_place.address.port, ports.chosen["driver_api_address"].port)
        where = ("127.0.0.1", chosen.driver_place.address.port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(where)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(where)
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(where)
            worker.listen()
            socket.create_connection(where).close()


async def test_what_lingers_of_an_earlier_server_is_no_obstacle() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = server.getsockname()
        with socket.create_connection(name) as client:
            server.accept()[0].close()  # who closes first waits
            client.recv(1)
    where = Address(*name)
    async with open_ports(config(driver_api_address=where), Apis.DRIVER, {}) as ports:
        assert ports.chosen == {"driver_api_address": where}


async def test_over_http_whoever_connects_waits_for_a_worker() -> None:
    http = config(fleet_api_type="rest", port=0, control_address="127.0.0.1:0")
    async with open_ports(http, Apis.BOTH, {}) as ports:
        assert set(ports.descriptors) == {"rest_fleet_api_address", "host", "control_address"}
        chosen = ports.applied(http)
        assert chosen.fleet_place is not None
        assert chosen.flower_place is not None
        for place in (chosen.fleet_place, chosen.flower_place):
            socket.create_connection((place.address.host, place.address.port)).close()


async def test_what_listens_already_is_passed_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as given:
        sockets = {"rest_fleet_api_address": [given]}
        async with open_ports(config(fleet_api_type="rest"), Apis.FLEET, sockets) as ports:
            assert ports.descriptors == {"rest_fleet_api_address": [given.fileno()]}
            assert ports.chosen == {}


async def test_a_port_that_is_taken_is_refused() -> None:
    async with open_ports(config(), Apis.DRIVER, {}) as ports:
        taken: Address = ports.chosen["driver_api_address"]
        # Its workers do not listen yet: those of another SuperLink would share it.
        with pytest.raises(AddressError, match="another program listens there"):
            async with open_ports(config(driver_api_address=taken), Apis.DRIVER, {}):
                pass
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind((taken.host, taken.port))
            worker.listen()
            with pytest.raises(AddressError, match="another program listens there"):
                async with open_ports(config(driver_api_address=taken), Apis.DRIVER, {}):
                    pass
