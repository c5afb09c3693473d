"""SuperExecs: programs of an operator that ask for runs, and start the process of each.

A run is given to one of them: its answer is written inside of a lease. Broken, the run waits again;
and so it does when nothing was heard of its process for half a minute.

Source: `flower-superexec` of Flower 1.39 to 1.42, which asks anew every second, as long as it runs.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

import attrs
import trio

from superlink_trio.logs import Throttle
from superlink_trio.logs.context import note
from superlink_trio.rpc import Caller, Holds, Refused, Status, parse
from superlink_trio.runtime.signatures import Signatures
from superlink_trio.state import StateUnavailable
from superlink_trio.state.messages import Claim, MessageState
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import SERVER_APP, SIMULATION, write_task

_log = logging.getLogger(__name__)

_METHOD = "/flwr.proto.Runtime/AcquireTask"

# Flower's number for a caller who is not who it should be.
_NOT_AUTHENTICATED = 1008

# Seconds in which the state has to note what became of a run. Otherwise the run waits again in half
# a minute.
_PATIENCE = 2.0


class Acquiring(Protocol):
    """What is done about SuperExecs."""

    def acquire_task(
        self, holds: Holds, raw: bytes, caller: Caller
    ) -> AbstractAsyncContextManager[bytes]:
        """Answer a SuperExec that asks for a run; hold it in `holds` while there is none."""


@attrs.frozen(kw_only=True)
class SuperExecs:
    """Gives runs away."""

    state: MessageState
    hold: Callable[[], float]
    """Seconds for which a call waits for a run."""
    signatures: Signatures | None
    """None: whoever calls is given runs."""
    refusals: Throttle = attrs.field(factory=lambda: Throttle(_log))

    @asynccontextmanager
    async def acquire_task(self, holds: Holds, raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        """Give a SuperExec the oldest run, or none if there is none in time."""
        self._check(raw, caller)
        supported = set(parse(pb.AcquireTaskRequest, raw).supported_task_types)
        claim = None
        if not supported.isdisjoint((SERVER_APP, SIMULATION)):
            claim = await self._claim(holds)
        if claim is not None and claim.run.task_type not in supported:
            await self._put_back(claim, f"this SuperExec does not start {claim.run.task_type}")
            claim = None
        if claim is None:
            yield b""
            return
        note(run_id=claim.run.run_id)
        arrived = False
        try:
            yield pb.AcquireTaskResponse(
                task=write_task(claim.run), token=claim.token
            ).SerializeToString()
            arrived = True
        finally:
            if not arrived:
                await self._put_back(claim, "the SuperExec went away")
        _log.info("Run %d was given to the SuperExec at %s", claim.run.run_id, caller.connection)

    def _check(self, raw: bytes, caller: Caller) -> None:
        if self.signatures is None:
            return
        fault = self.signatures.fault(_METHOD, raw, caller.metadata, self.state.now())
        if fault is not None:
            self.refusals.log(
                logging.WARNING,
                caller.host,
                "A SuperExec at %s is refused: %s",
                *(caller.connection, fault),
            )
            raise Refused(
                Status.UNAUTHENTICATED,
                f"A SuperExec is refused: {fault}.",
                _NOT_AUTHENTICATED,
                reason="authentication",
            )

    async def _claim(self, holds: Holds) -> Claim | None:
        claim = None
        with holds.open(self.hold()):
            while claim is None:
                await self.state.await_pending_run()
                # Whoever gives up in the middle of this would not know what is claimed.
                with trio.move_on_after(_PATIENCE, shield=True):
                    claim = await self.state.claim_run()
        return claim

    async def _put_back(self, claim: Claim, why: str) -> None:
        with trio.move_on_after(_PATIENCE, shield=True), suppress(StateUnavailable):
            if await self.state.unclaim_run(claim.token):
                _log.info("Run %d waits again: %s", claim.run.run_id, why)


@attrs.frozen
class NoSuperExecs:
    """Gives nothing away: this SuperLink starts the process of each run itself."""

    refusals: Throttle = attrs.field(factory=lambda: Throttle(_log))

    @asynccontextmanager
    async def acquire_task(self, holds: Holds, raw: bytes, caller: Caller) -> AsyncIterator[bytes]:
        """Refuse a SuperExec. Raises Refused."""
        reason = (
            "this SuperLink starts the processes of runs itself; --isolation process leaves them "
            "to SuperExecs"
        )
        self.refusals.log(
            logging.WARNING,
            caller.host,
            "A SuperExec at %s is refused: %s",
            *(caller.connection, reason),
        )
        raise Refused(Status.FAILED_PRECONDITION, f"A SuperExec is refused: {reason}.")
        yield b""
