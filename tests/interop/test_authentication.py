"""Unmodified nodes with keys of their own, over TLS."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import attrs
import pytest
import trio
import trustme
from interop.peers import Peers, Round
from peering.processes import SuperLink

pytestmark = [
    pytest.mark.interop,
    pytest.mark.beyond("is started without TLS by these tests"),
]


@attrs.frozen
class Pair:
    private: Path
    public: Path


@attrs.frozen
class Secured:
    """A folder with certificates and keys, and a SuperLink's options that name them."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def keys(self) -> Path:
        return self.folder / "keys.csv"

    def certify(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        authority.cert_pem.write_to_path(str(self.ca))
        certificate.private_key_pem.write_to_path(str(self.folder / "server.key"))
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(str(self.folder / "server.pem"), append=True)

    def make_pair(self, name: str) -> Pair:
        path = self.folder / name
        command = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-C", name, "-f"]
        subprocess.run([*command, path], check=True)
        return Pair(path, path.with_name(f"{name}.pub"))

    def admit(self, *pairs: Pair) -> None:
        self.keys.write_text("".join(pair.public.read_text() for pair in pairs))

    async def superlink(self, peers: Peers, **addresses: str) -> SuperLink:
        certificates = (self.ca, self.folder / "server.pem", self.folder / "server.key")
        keys = (self.keys, self.folder / "superlink", self.folder / "superlink.pub")
        return await peers.superlink(
            *("--certificates", *map(str, certificates)),
            *("--require-client-authentication", *map(str, keys)),
            ca=self.ca,
            **addresses,
        )


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    secured = Secured(tmp_path)
    secured.certify()
    secured.make_pair("superlink")
    return secured


@pytest.mark.parametrize("version", ["1.9.0", "1.10.0", "1.11.1"])
async def test_listed_nodes_train(version: str, secured: Secured, peers: Peers) -> None:
    first, second = secured.make_pair("first"), secured.make_pair("second")
    secured.admit(first, second)
    with trio.fail_after(90):
        superlink = await secured.superlink(peers)
        await peers.node(superlink, version, first.private, first.public, step=1)
        await peers.node(superlink, version, second.private, second.public, step=3)
        rounds = await peers.federate(superlink, clients=2)
    assert rounds == [Round(1, 2, failures=0), Round(2, 4, failures=0), Round(3, 6, failures=0)]
    assert not any("Access denied" in line for line in superlink.program.lines)


@pytest.mark.parametrize("version", ["1.9.0", "1.11.1"])
async def test_a_stranger_is_refused_and_disturbs_nobody(
    version: str, secured: Secured, peers: Peers
) -> None:
    listed, stranger = secured.make_pair("listed"), secured.make_pair("stranger")
    secured.admit(listed)
    with trio.fail_after(90):
        superlink = await secured.superlink(peers)
        await peers.node(superlink, version, stranger.private, stranger.public, step=100)
        await superlink.program.line("Access denied to .*the key is not listed")
        await peers.node(superlink, version, listed.private, listed.public, step=1)
        [only] = await peers.federate(superlink, clients=1, rounds=1)
    assert (only.loss, only.failures) == (1, 0)


async def test_a_revoked_node_is_out_at_once(secured: Secured, peers: Peers) -> None:
    kept, revoked = secured.make_pair("kept"), secured.make_pair("revoked")
    secured.admit(kept, revoked)
    with trio.fail_after(90):
        superlink = await secured.superlink(peers)
        await peers.node(superlink, "1.9.0", kept.private, kept.public, step=1)
        await peers.node(superlink, "1.9.0", revoked.private, revoked.public, step=3)
        [before] = await peers.federate(superlink, clients=2, rounds=1)
        secured.admit(kept)
        superlink.program.process.send_signal(signal.SIGHUP)
        await superlink.program.line("Access denied to .*the key (was revoked|is not listed)")
    assert before.loss == 2


async def test_nodes_come_back_to_a_superlink_that_was_restarted(
    secured: Secured, peers: Peers
) -> None:
    pair = secured.make_pair("node")
    secured.admit(pair)
    with trio.fail_after(90):
        old = await secured.superlink(peers)
        await peers.node(old, "1.11.1", pair.private, pair.public)
        [before] = await peers.federate(old, clients=1, rounds=1)
        old.program.process.kill()
        await old.program.end()
        new = await secured.superlink(peers, driver=old.driver, fleet=old.fleet)
        [after] = await peers.federate(new, clients=1, rounds=1)
    assert (before.loss, after.loss) == (1, 1)


@pytest.mark.parametrize("version", ["1.9.0", "1.10.0", "1.11.1"])
async def test_a_node_that_is_stopped_signs_off_and_ends(
    version: str, secured: Secured, peers: Peers
) -> None:
    pair = secured.make_pair("node")
    secured.admit(pair)
    with trio.fail_after(60):
        superlink = await secured.superlink(peers)
        node = await peers.node(superlink, version, pair.private, pair.public)
        await superlink.program.line("Node .* joined")
        await trio.sleep(1)  # if it were held, it would be by now
        node.process.terminate()
        await node.end()
        await superlink.program.line("Node .* left")
