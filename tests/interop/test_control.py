"""The command line `flwr` of several releases as it is installed, over HTTP and over gRPC."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
import trio
from certificates import Authority
from interop.today import Today
from peering.processes import ANY_PORT
from peering.today import NEWEST

pytestmark = [pytest.mark.interop, pytest.mark.beyond("serves one generation only")]


async def test_nodes_and_command_lines_of_several_releases(today: Today) -> None:
    with trio.fail_after(240):
        link = await today.superlink("--control-grpc-address", ANY_PORT)
        for version in (NEWEST, "1.36.0", "1.26.1"):
            await today.node(link, version)
        await link.nodes(3)
        app = today.app()
        assert (await today.ran(app, version="1.26.1", nodes=3))["sum"] == [1]
        run_id = (await today.newest_run(version="1.37.0"))["run-id"]
        for version, name in (("1.26.1", "older"), ("1.37.0", "mine")):
            assert '"sum": [1.0]' in await today.told("log", run_id, name, version=version)

        run = await today.run(app, version="1.36.0", nodes=3, stall=2)
        await run.line("configure_train")
        newest = await today.newest_run(version="1.26.1")
        await today.told("stop", newest["run-id"], "older", version="1.26.1")
        await run.end()
        assert (await today.newest_run())["status"] == "finished:stopped"


async def test_a_token_is_entered_as_the_document_says(today: Today, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    file, token = tmp_path / "tokens", secrets.token_hex(32)
    file.write_text(token)
    file.chmod(0o600)
    with trio.fail_after(120):
        link = await today.superlink(
            *("--certificates", *authority.files, "--control-token-file", file),
            *("--control-grpc-address", ANY_PORT),
            ca=authority.files[0],
        )
        for version, name, address in (
            (NEWEST, "mine", link.http),
            ("1.26.1", "older", link.control_grpc),
        ):
            refused = await today.flwr("ls", name, version=version)
            assert await refused.end() != 0
            await refused.line("was shown no token")
            await today.enter(f"{address}", token)
            await today.told("ls", name, version=version)
