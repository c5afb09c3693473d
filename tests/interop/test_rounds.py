"""Whole runs: clients and a server-app of Flower, and the losses they must come to.

The two clients of a run add 1 and 3 to every weight, so the mean grows by 2 a round: any other
loss means that an answer was lost, given twice or given to the wrong node.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from certificates import Authority
from interop.peers import VERSIONS, Peers, Round
from peering.processes import SuperLink

pytestmark = pytest.mark.interop

THREE_ROUNDS = [Round(1, 2, failures=0), Round(2, 4, failures=0), Round(3, 6, failures=0)]


@pytest.mark.smoke
@pytest.mark.parametrize("version", ["1.8.0", "1.9.0"])
async def test_clients_and_server_app_of_one_release(
    version: str, superlink: SuperLink, peers: Peers
) -> None:
    with trio.fail_after(60):
        await peers.client(superlink, version, step=1)
        await peers.client(superlink, version, step=3)
        rounds = await peers.federate(superlink, version, clients=2)
    assert rounds == THREE_ROUNDS


@pytest.mark.parametrize("version", ["1.8.0", "1.9.0"])
async def test_client_apps_under_their_own_launcher(
    version: str, superlink: SuperLink, peers: Peers
) -> None:
    with trio.fail_after(60):
        await peers.client_app(superlink, version, "adder:app")
        await peers.client_app(superlink, version, "adder:app")
        rounds = await peers.federate(superlink, version, clients=2, rounds=1)
    assert rounds == [Round(1, 1, failures=0)]


@pytest.mark.smoke
@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_over_rest_under_a_server_app_of_1_9(version: str, peers: Peers) -> None:
    with trio.fail_after(60):
        superlink = await peers.superlink(transport="rest")
        await peers.client(superlink, version, transport="rest", step=1)
        await peers.client(superlink, version, transport="rest", step=3)
        rounds = await peers.federate(superlink, clients=2)
    assert rounds == THREE_ROUNDS


@pytest.mark.smoke
@pytest.mark.beyond("is started without TLS by these tests")
@pytest.mark.parametrize("version", VERSIONS)
async def test_clients_over_https(version: str, peers: Peers, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    ca, *_ = authority.files
    certificates = ("--certificates", *map(str, authority.files))
    with trio.fail_after(60):
        superlink = await peers.superlink(*certificates, transport="rest", ca=ca)
        await peers.client(superlink, version, transport="rest", step=1)
        await peers.client(superlink, version, transport="rest", step=3)
        rounds = await peers.federate(superlink, clients=2)
    assert rounds == THREE_ROUNDS


@pytest.mark.smoke
@pytest.mark.parametrize("transport", ["grpc-rere", "grpc-adapter"])
@pytest.mark.parametrize("version", ["1.10.0", "1.11.1"])
async def test_later_clients_under_a_server_app_of_1_9(
    version: str, transport: str, peers: Peers
) -> None:
    with trio.fail_after(60):
        superlink = await peers.superlink(transport=transport)
        await peers.client(superlink, version, transport=transport, step=1)
        await peers.client(superlink, version, transport=transport, step=3)
        rounds = await peers.federate(superlink, clients=2)
    assert rounds == THREE_ROUNDS
