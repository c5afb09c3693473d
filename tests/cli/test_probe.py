"""`superlink-trio probe`, as a process against SuperLinks in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import attrs
import pytest
import trio
from certificates import Authority
from operators import get, watched_config

from superlink_trio import SuperLink, run_superlink


@attrs.frozen
class Outcome:
    status: int
    out: str
    err: str


async def probe(driver: object, fleet: object, *options: object) -> Outcome:
    return await run("--driver", driver, "--fleet", fleet, *options)


async def run(*options: object) -> Outcome:
    command = [sys.executable, "-m", "superlink_trio", "probe", *options]
    with trio.fail_after(60):
        ran = await trio.run_process(
            [str(word) for word in command],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    return Outcome(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


async def nodes_of(link: SuperLink) -> int:
    _, text = await get(link, "/status")
    known: int = json.loads(text)["nodes"]["known"]
    return known


@pytest.fixture
async def link(nursery: trio.Nursery) -> SuperLink:
    link: SuperLink = await nursery.start(run_superlink, watched_config())
    return link


async def test_a_task_goes_there_and_back(link: SuperLink) -> None:
    outcome = await probe(link.driver_address, link.fleet_address)
    assert outcome.status == 0, outcome.err
    steps = [line[:28].strip() for line in outcome.out.splitlines()[:8]]
    assert steps == [
        *("open a run", "register a node", "push a task", "pull it as the node"),
        *("push its answer", "pull the answer", "sign the node off", "all of it"),
    ]
    assert await nodes_of(link) == 0
    await link.stop()


async def test_it_tells_the_version_where_there_is_an_admin_surface(link: SuperLink) -> None:
    both = link.driver_address, link.fleet_address
    outcome = await probe(*both, "--admin-address", link.admin_address)
    assert f"came back from superlink-trio {version('superlink-trio')};" in outcome.out
    outcome = await probe(*both, "--admin-address", link.driver_address)
    assert outcome.status == 1
    assert "name the address that --admin-address gave the SuperLink" in outcome.err
    await link.stop()


async def test_over_rest_too(nursery: trio.Nursery) -> None:
    config = watched_config(fleet_api_type="rest", rest_fleet_api_address="127.0.0.1:0")
    link: SuperLink = await nursery.start(run_superlink, config)
    outcome = await probe(link.driver_address, f"http://{link.fleet_address}")
    assert outcome.status == 0, outcome.err
    assert await nodes_of(link) == 0
    await link.stop()


async def test_with_certificates_on_both_sides(nursery: trio.Nursery, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    key, certificate = authority.client()
    (tmp_path / "driver.key").write_bytes(key)
    (tmp_path / "driver.pem").write_bytes(certificate)
    files = authority.files
    config = watched_config(insecure=False, certificates=files, driver_client_ca=files[0])
    link: SuperLink = await nursery.start(run_superlink, config)
    addresses = link.driver_address, link.fleet_address
    trusting = ("--root-certificates", files[0])
    mine = (
        "--client-certificate",
        tmp_path / "driver.pem",
        "--client-key",
        tmp_path / "driver.key",
    )
    assert (await probe(*addresses, *trusting, *mine)).status == 0
    unknown = await probe(*addresses, *trusting)
    assert unknown.status == 1
    assert "--client-certificate" in unknown.err
    await link.stop()


async def test_ports_that_are_mixed_up_are_told(link: SuperLink) -> None:
    outcome = await probe(link.fleet_address, link.driver_address)
    assert outcome.status == 1
    assert "open a run: UNIMPLEMENTED" in outcome.err
    assert "mixed up" in outcome.err
    await link.stop()


async def test_its_node_signs_off_when_a_later_step_fails(
    link: SuperLink, nursery: trio.Nursery
) -> None:
    other: SuperLink = await nursery.start(run_superlink, watched_config())
    outcome = await probe(other.driver_address, link.fleet_address)
    assert outcome.status == 1
    assert "sign the node off" in outcome.out
    assert "sign the node off" not in outcome.err
    assert await nodes_of(link) == 0
    await other.stop()
    await link.stop()


async def test_it_gives_up_in_time(link: SuperLink) -> None:
    [silent] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = silent.socket.getsockname()[1]
    with trio.fail_after(20):
        outcome = await probe(link.driver_address, f"http://127.0.0.1:{port}", "--timeout", "0.5")
    assert outcome.status == 1
    assert "register a node" in outcome.err
    await silent.aclose()
    await link.stop()


SUPERNODE_STEPS = [
    *("register a SuperNode", "activate it", "send a heartbeat", "deactivate it"),
    *("unregister it", "end its held pull"),
]


async def flower_of(link: SuperLink) -> tuple[int, int]:
    """Count SuperNodes, and the calls that are under way."""
    _, text = await get(link, "/status")
    document = json.loads(text)
    return document["flower"]["known"], document["calls"]["under_way"]


async def test_a_node_of_todays_flower_comes_and_goes(nursery: trio.Nursery) -> None:
    link: SuperLink = await nursery.start(run_superlink, watched_config(port=0))
    version_from = "--admin-address", link.admin_address
    outcome = await run("--superlink", link.flower_address, *version_from)
    assert outcome.status == 0, outcome.err
    *lines, last = outcome.out.splitlines()
    assert [line[:28].strip() for line in lines] == [*SUPERNODE_STEPS, "all of it"]
    ours = f"superlink-trio {version('superlink-trio')}"
    assert last == f"A SuperNode had its answers from {ours}; nothing of it stays."
    assert await flower_of(link) == (0, 0)
    both = "--driver", link.driver_address, "--fleet", link.fleet_address
    outcome = await run(*both, "--superlink", f"http://{link.flower_address}")
    assert outcome.status == 0, outcome.err
    assert "A task came back" in outcome.out
    assert "A SuperNode had its answers; nothing" in outcome.out
    await link.stop()


async def test_over_tls_a_node_is_let_in_that_may_register(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    files = authority.files
    config = watched_config(insecure=False, certificates=files, port=0)
    link: SuperLink = await nursery.start(run_superlink, config)
    trusting = "--root-certificates", files[0]
    outcome = await run("--superlink", link.flower_address, *trusting)
    assert outcome.status == 0, outcome.err
    plain = await run("--superlink", f"http://{link.flower_address}")
    assert (plain.status, "http or https" in plain.err) == (1, True)
    await link.stop()
    config = watched_config(insecure=False, certificates=files, port=0, enable_supernode_auth=True)
    strict: SuperLink = await nursery.start(run_superlink, config)
    refused = await run("--superlink", strict.flower_address, *trusting)
    assert refused.status == 1
    assert "register a SuperNode: 412" in refused.err
    assert "--enable-supernode-auth" in refused.err
    await strict.stop()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--driver", "localhost", "--fleet", "localhost:1"], "names no port"),
        (["--driver", "localhost:1", "--fleet", "ftp://localhost:1"], "http://HOST:PORT"),
        (["--driver", "a:1", "--fleet", "a:1", "--root-certificates", "/none"], "No such file"),
        (["--driver", "a:1", "--fleet", "a:1", "--timeout", "-1"], "more than 0"),
        (["--driver", "a:1"], "go together"),
        (["--superlink", "a"], "names no port"),
        ([], "--superlink"),
    ],
)
def test_what_cannot_be_right_is_said_at_once(options: list[str], said: str) -> None:
    command = [sys.executable, "-m", "superlink_trio", "probe", *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2
    assert said in ran.stderr
