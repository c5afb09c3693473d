"""The examples, run by the words of their READMEs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import trio
from interop.peers import REFERENCE, Peers
from peering.processes import Program, SuperLink

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(REFERENCE is not None, reason="they are ours"),
]

_ROOT = Path(__file__).parents[2]
_EXAMPLES = _ROOT / "examples"


async def test_digits(peers: Peers) -> None:
    folder = _EXAMPLES / "digits"
    readme = (folder / "README.md").read_text()
    [superlink_line] = re.findall(r"^\.venv/bin/superlink-trio (.*)$", readme, re.MULTILINE)
    [driver_line] = re.findall(r"^\.venv/bin/flower-server-app (.*)$", readme, re.MULTILINE)
    [(first, last)] = re.findall(
        r"accuracy of ([\d.]+) after the first round and ([\d.]+) after the tenth",
        re.sub(r"\s+", " ", readme),
    )
    with trio.fail_after(90):
        program = await peers.simulating(*shlex.split(superlink_line), "--app-dir", str(folder))
        ready = await program.report("driver_address")
        superlink = SuperLink(program, ready["driver_address"], "")
        driver = await peers.launcher(
            *("1.9.0", "flower-server-app", *shlex.split(driver_line)),
            *("--dir", folder, "--superlink", superlink.driver),
        )
        assert await driver.end() == 0
    told = "".join(driver.lines)
    accuracies = dict(re.findall(r"\((\d+), ([\d.]+)\)", told.partition("'accuracy'")[2]))
    assert (f"{float(accuracies['1']):.3f}", f"{float(accuracies['10']):.3f}") == (first, last)


async def test_adder(superlink: SuperLink, peers: Peers) -> None:
    folder = _EXAMPLES / "adder"
    readme = (_ROOT / "README.md").read_text()
    assert (folder / "app.py").read_text() in readme
    readme = readme.partition("## Flower 1.8 to 1.11")[2].partition("\n## ")[0]
    clients = re.findall(r"^\.venv/bin/flower-client-app (app:client .*)$", readme, re.MULTILINE)
    [driver] = re.findall(r"^\.venv/bin/flower-server-app (app:server .*)$", readme, re.MULTILINE)
    [losses] = re.findall(r"prints its losses ([\d.]+), ([\d.]+) and ([\d.]+)", readme)

    async def start(name: str, words: str, address: str) -> Program:
        return await peers.launcher(
            *("1.9.0", name, *shlex.split(words)), *("--dir", folder, "--superlink", address)
        )

    with trio.fail_after(90):
        for words in clients:
            node = await start("flower-client-app", words, superlink.fleet)
            await node.line("starting|Starting")
        program = await start("flower-server-app", driver, superlink.driver)
        assert await program.end() == 0
    told = "".join(program.lines)
    assert re.findall(r"round \d: ([\d.]+)", told) == list(losses)
