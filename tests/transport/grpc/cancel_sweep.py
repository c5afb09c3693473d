"""Cancel a server at every point of its life, one after the other, and see that nothing is left.

Usage: cancel_sweep.py ADDRESS. Writes how many points there were. A program of its own, because
what it looks for is a process that never ends.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import grpc.aio
import trio

from superlink_trio.config.address import Address
from superlink_trio.rpc import Api, Caller, Holds
from superlink_trio.transport.grpc.loop import TrioEventLoop, open_loop
from superlink_trio.transport.grpc.server import GrpcOptions, serve_grpc


@attrs.define(eq=False)
class CancelAfter(trio.abc.Instrument):
    """Cancels `scope` once Trio has run `steps` task steps."""

    scope: trio.CancelScope
    steps: int

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps -= 1
        if self.steps == 0:
            self.scope.cancel()


@attrs.frozen
class Fates:
    """What became of calls, by their names."""

    handled: set[str] = attrs.field(factory=set)
    put_back: set[str] = attrs.field(factory=set)
    answered: set[str] = attrs.field(factory=set)


async def call(loop: TrioEventLoop, address: Address, method: str, fates: Fates) -> None:
    async def call() -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(str(address), options) as channel:
            try:
                await channel.unary_unary(f"/test.Service/{method}", None, None)(
                    method.encode(), timeout=2
                )
                fates.answered.add(method)
            except grpc.aio.AioRpcError as error:
                # A call that arrives while grpc shuts down may end with CANCELLED, or be forgotten
                # (about 1 in 300, just as with plain grpc.aio on asyncio): but not one that
                # reached its handler.
                known = error.code().name in ("CANCELLED", "UNAVAILABLE")
                if method in fates.handled and not known:
                    raise

    await loop.run_aio_coroutine(call())


async def live(loop: TrioEventLoop, address: Address, steps: int) -> bool:
    """Serve a held and a leased call and stop. Returns whether it got to the end uncancelled."""
    handling = 0
    fates = Fates()
    holds, both_held = Holds(), trio.Event()

    async def held(request: bytes, caller: Caller) -> bytes:
        nonlocal handling
        handling += 1
        fates.handled.add(request.decode())
        if handling == 2:
            both_held.set()
        try:
            with holds.open(30):
                await trio.sleep_forever()
        finally:
            handling -= 1
        return b""

    @asynccontextmanager
    async def leased(request: bytes, caller: Caller) -> AsyncIterator[bytes]:
        answer = await held(request, caller)
        try:
            yield answer
        except BaseException:
            fates.put_back.add(request.decode())
            raise

    api = Api(service="test.Service", unary={"Held": held}, leased={"Leased": leased}, holds=holds)
    stopping = trio.Event()
    async with trio.open_nursery() as callers:
        with trio.CancelScope() as scope:
            instrument = CancelAfter(scope, steps)
            trio.lowlevel.add_instrument(instrument)
            try:
                async with trio.open_nursery() as nursery:

                    async def serve(task_status: trio.TaskStatus[Address]) -> None:
                        await serve_grpc(
                            [api],
                            address,
                            loop=loop,
                            options=GrpcOptions(grace=5),
                            stopping=stopping,
                            task_status=task_status,
                        )
                        nursery.cancel_scope.cancel()

                    await nursery.start(serve)
                    callers.start_soon(call, loop, address, "Held", fates)
                    callers.start_soon(call, loop, address, "Leased", fates)
                    await both_held.wait()
                    stopping.set()
            finally:
                trio.lowlevel.remove_instrument(instrument)
        assert handling == 0, "serve_grpc returned before its handlers had ended"
    assert not fates.answered & fates.put_back, "what a client has got went back"
    return not scope.cancelled_caught and instrument.steps > 0


async def main(address: Address) -> None:
    points = 0
    async with open_loop() as loop:
        # Several rounds: the kernel and grpc's threads shift the points about.
        for _ in range(5):
            steps, ended = 0, False
            while not ended:
                steps += 1
                with trio.fail_after(20):
                    ended = await live(loop, address, steps)
            points += steps
    sys.stdout.write(str(points))


trio.run(main, Address.parse(sys.argv[1]))
