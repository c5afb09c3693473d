"""The examples, run by the words of their READMEs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import trio
from interop.peers import REFERENCE, Peers, SuperLink

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(REFERENCE is not None, reason="they are ours"),
]

_EXAMPLES = Path(__file__).parents[2] / "examples"


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
