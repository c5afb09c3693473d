"""Starts the process of each run, a program as Flower installs it, under supervision.

`flwr-serverapp` runs a run's ServerApp, `flwr-simulation` all of a run that is simulated.

Each process leads a session of its own, and ends with everybody in it: when its run is stopped,
when the SuperLink stops, and when it has ended by itself. It gets its token in a file
without a name: in a command line everybody on the machine would see it.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import trio

from superlink_trio.config import Address
from superlink_trio.processes.ending import end_session
from superlink_trio.processes.handover import Handover, SessionLeader
from superlink_trio.runtime.ending import STOPPED, fail_run
from superlink_trio.runtime.output import Output
from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import Claim, MessageState
from superlink_trio.wire.messages import SERVER_APP, SIMULATION

_log = logging.getLogger(__name__)

# What brings the programs.
_PACKAGES = {SERVER_APP: "flwr>=1.39", SIMULATION: "flwr[simulation]>=1.39"}

# Seconds after which a database that cannot be used is tried again.
_TRY_AGAIN_AFTER = 1.0

# How long a session may take to be gone after SIGKILL, in seconds.
_KILLED = 1.0

# Seconds that a process has to end by itself once its run is over: it says its last words then.
_FAREWELL = 2.0


def find_program(name: str) -> str | None:
    """Find a program: beside this Python, or on PATH; None where it is not installed."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.is_file() else shutil.which(name)


@attrs.frozen(kw_only=True)
class Launcher:
    """A service that starts a process for each run, `most` at the same time."""

    state: MessageState
    address: Callable[[], Address]
    """Of the Runtime API."""
    certificate: Path | None
    """The CA of the Runtime API's certificate; None where it speaks plain HTTP."""
    most: int
    find: Callable[[str], str | None] = find_program
    handover: Handover | None = None
    """What others leave to this one, and this one to others; None: there are none."""

    async def __call__(
        self,
        *,
        stopping: trio.Event,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stopping`."""
        places = trio.CapacityLimiter(self.most)
        async with trio.open_nursery() as nursery:
            for process in () if self.handover is None else self.handover.take():
                places.acquire_on_behalf_of_nowait(place := object())
                nursery.start_soon(self._take_over, process, places, place)
            nursery.start_soon(self._start_all, places, nursery)
            task_status.started()
            await stopping.wait()
            # A run takes longer than any grace, and ends with this SuperLink.
            nursery.cancel_scope.cancel()

    async def _start_all(self, places: trio.CapacityLimiter, nursery: trio.Nursery) -> None:
        while True:
            await places.acquire_on_behalf_of(place := object())
            claim = None
            while claim is None:
                await self.state.await_pending_run()
                try:
                    claim = await self.state.claim_run()
                except StateUnavailable:
                    await trio.sleep(_TRY_AGAIN_AFTER)
            nursery.start_soon(self._run, claim, places, place)

    async def _take_over(
        self, process: SessionLeader, places: trio.CapacityLimiter, place: object
    ) -> None:
        failure = STOPPED
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_with_its_run, process.purpose, process.kill)
                await process.wait()
                nursery.cancel_scope.cancel()
            failure = "its process has ended"
        finally:
            await self._end(process.purpose, process.end)
            places.release_on_behalf_of(place)
            await fail_run(self.state, process.purpose, failure)

    async def _run(self, claim: Claim, places: trio.CapacityLimiter, place: object) -> None:
        failure = STOPPED
        try:
            failure = await self._launch(claim)
        finally:
            places.release_on_behalf_of(place)
            await fail_run(self.state, claim.run.run_id, failure)

    async def _launch(self, claim: Claim) -> str:
        """Run the process of a run to its end; say why, for a run that is not over then."""
        name = claim.run.task_type
        program = self.find(name)
        if program is None:
            return (
                f"{name} is not installed where the SuperLink is: "
                f"{sys.executable} -m pip install '{_PACKAGES[name]}'"
            )
        try:
            # A file without a name, which only the process has.
            with tempfile.TemporaryFile() as token, ExitStack() as on_error:
                token.write(claim.token.encode())
                token.flush()
                token.seek(0)
                output = on_error.enter_context(Output(name))
                process = await trio.lowlevel.open_process(
                    self._command(program, token.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=output.fileno(),
                    stderr=subprocess.STDOUT,
                    pass_fds=[token.fileno()],
                    start_new_session=True,
                )
                on_error.pop_all()
        except OSError as error:
            return f"{program} cannot be started: {error.strerror}"
        with output:
            try:
                self._note(claim.run.run_id, process.pid)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(output.follow)
                    nursery.start_soon(self._end_with_its_run, claim.run.run_id, process.kill)
                    await process.wait()
                    nursery.cancel_scope.cancel()
            finally:
                await self._end(claim.run.run_id, partial(end_session, process.pid))
                with trio.move_on_after(_KILLED, shield=True):
                    await process.wait()
            output.read()
        printed = "".join(f"\n{line}" for line in output.last_lines)
        return f"its process ended with status {process.returncode}{printed}"

    def _command(self, program: str, token: int) -> Sequence[str]:
        tls = ["--insecure"]
        if self.certificate is not None:
            tls = ["--root-certificates", str(self.certificate)]
        address = self.address()
        if address.host in ("0.0.0.0", "::"):
            address = attrs.evolve(address, host="127.0.0.1")
        where = ["--runtime-api-address", str(address), "--token-file", f"/dev/fd/{token}"]
        if not self.state.outlives_process:
            # It ends by itself then when this process was killed: nobody knows its run any more.
            where += ["--parent-pid", str(os.getpid())]
        return [program, *where, *tls]

    def _note(self, run_id: int, pid: int) -> None:
        if self.handover is not None and (process := SessionLeader.of(run_id, pid)) is not None:
            self.handover.add(process)

    async def _end(self, run_id: int, end: Callable[[float], Awaitable[Sequence[int]]]) -> None:
        """End everybody in the session that the process of a run leads."""
        with trio.CancelScope(shield=True):
            if left := await end(_KILLED):
                _log.error("Processes of run %d do not end: %s", run_id, left)
        if self.handover is not None:
            self.handover.remove(run_id)

    async def _end_with_its_run(self, run_id: int, kill: Callable[[], None]) -> None:
        await self.state.await_finished(run_id)
        await trio.sleep(_FAREWELL)
        kill()
