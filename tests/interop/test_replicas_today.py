"""Today's Flower as it is installed, and SuperLinks behind a balancer, each of which ends once."""

from __future__ import annotations

import secrets
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio
from interop.today import Link, Today
from peering.balancer import Balancer, NoBalancer, Place, balancing
from peering.processes import SuperLink
from postgresql import the_server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.beyond("keeps everything in one process"),
    pytest.mark.long,
]


@attrs.frozen
class Replicas:
    """Two SuperLinks that leave runs to SuperExecs, and where all of them are reached."""

    today: Today
    balancer: Balancer
    options: tuple[str | Path, ...]
    front: Link
    links: dict[Place, Link] = attrs.field(factory=dict)

    async def start(self, place: Place) -> None:
        """Start one, and wait until clients are sent there."""
        [fleet] = (each for each in self.balancer.of("fleet") if each.name == place.name)
        self.links[place] = await self.today.superlink(
            *place.options, *self.options, fleet=fleet.address
        )
        self.today.name(self.front)
        await self.balancer.fill(place)

    async def start_again(self, place: Place, by: signal.Signals) -> None:
        """End one, and start it when it has ended."""
        await self.links.pop(place).program.terminate(by)
        await self.start(place)


def _private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """What SuperExecs and SuperLinks share."""
    return _private(tmp_path / "superexec.secret", secrets.token_hex(32))


@pytest.fixture
async def replicas(today: Today, secret: Path, tmp_path: Path) -> AsyncIterator[Replicas]:
    token = secrets.token_hex(32)
    options = (
        *("--database", the_server().new_schema()),
        *("--control-token-file", _private(tmp_path / "tokens", token)),
        *("--isolation", "process", "--superexec-auth-secret-file", secret),
    )
    try:
        async with balancing(tmp_path) as balancer:
            today.programs.append(balancer.program)
            addresses = balancer.addresses
            front = SuperLink(balancer.program, addresses["driver"], addresses["fleet"])
            replicas = Replicas(today, balancer, options, Link(front, addresses["flower"], None))
            for place in balancer.of("flower")[:2]:
                await replicas.start(place)
            await today.enter(replicas.front.http, token)
            yield replicas
    except NoBalancer as error:
        pytest.skip(str(error))


@pytest.mark.timeout(300)
async def test_a_run_goes_on_while_each_superlink_ends(
    replicas: Replicas, today: Today, secret: Path
) -> None:
    with trio.fail_after(280):
        await today.superexec(replicas.front, "--superexec-auth-secret-file", secret)
        await today.node(replicas.front)
        await today.node(replicas.front, "1.36.0")
        app = today.app()
        run = await today.run(app, rounds=3, stall=2)
        await run.line("configure_train")
        one, other = replicas.links
        await replicas.start_again(one, signal.SIGKILL)
        await replicas.start_again(other, signal.SIGTERM)
        # Its log broke off with one of them, as one that is over does not.
        assert await run.end() != 0
        newest = await today.newest_run()
        log = await today.told("log", newest["run-id"], "mine")
        assert '"sum": [1.0, 2.0, 3.0]' in log
        assert (await today.newest_run())["status"] == "finished:completed"
        assert (await today.ran(app))["sum"] == [1]
