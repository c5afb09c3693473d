"""One phase of a round: clients are asked, all at once, and each answers or fails by itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeAlias, TypeVar

import attrs
import trio

from superlink_trio.federation.join import JoinedClient
from superlink_trio.federation.messages import Kind, write_config, write_instruction
from superlink_trio.federation.protocols import ClientLike, InsLike, ParametersLike
from superlink_trio.federation.proxy import ClientFailed
from superlink_trio.federation.types import Code, EvaluateRes, FitRes
from superlink_trio.wire.bulk import join

_log = logging.getLogger(__name__)

_Res = TypeVar("_Res", FitRes, EvaluateRes)
Take: TypeAlias = Callable[[ClientLike, _Res], Awaitable[None]]
_Asking: TypeAlias = Callable[[], Awaitable[_Res]]

# What came of one instruction; None where the result was taken.
_Slot: TypeAlias = tuple[ClientLike, _Res] | Exception | None

_LONGEST_REASON = 500


@attrs.frozen
class Phase(Generic[_Res]):
    """What clients are asked to do, and what their answers are."""

    name: str
    """That of the method of a ClientProxy which asks for it."""
    kind: Kind
    answer: type[_Res]


FIT = Phase("fit", Kind.FIT, FitRes)
EVALUATE = Phase("evaluate", Kind.EVALUATE, EvaluateRes)


@attrs.define
class Outcome(Generic[_Res]):
    """What came of a phase, in the order of its instructions."""

    results: list[tuple[ClientLike, _Res]]
    """Empty where results were taken as they came."""
    failures: list[tuple[ClientLike, _Res] | BaseException]
    successes: int


@attrs.define(eq=False)
class _Shared:
    """A message that is the same for some clients: serialised by the first, dropped by the last."""

    kind: Kind
    config: bytes
    parameters: ParametersLike
    clients: int = 0
    _message: bytes | None = None
    _lock: trio.Lock = attrs.field(factory=trio.Lock)

    async def take(self) -> bytes:
        async with self._lock:
            message = self._message
            if message is None:
                message = await join(write_instruction(self.kind, self.config, self.parameters))
        self.clients -= 1
        self._message = message if self.clients else None
        return message


async def ask_all(
    phase: Phase[_Res],
    instructions: Sequence[tuple[ClientLike, InsLike]],
    *,
    server_round: int,
    timeout: float | None,
    at_once: int | None,
    take: Take[_Res] | None = None,
    answered: Callable[[], None],
) -> Outcome[_Res]:
    """Ask every client, `at_once` at a time or all, each for at most `timeout` seconds.

    With `take`, each result goes there when it comes and is not kept; where that raises, the result
    counts as a failure. `answered` is called after each client, whatever came of it.
    """
    slots: list[_Slot[_Res]] = [None] * len(instructions)
    places = trio.CapacityLimiter(math.inf if at_once is None else at_once)

    async def ask(slot: int, client: ClientLike, asking: _Asking[_Res]) -> None:
        try:
            async with places:
                result = await asking()
                if result.status.code == Code.OK and take is not None:
                    await take(client, result)
                else:
                    slots[slot] = (client, result)
        except Exception as error:
            _report(client, phase, server_round, error)
            slots[slot] = error
        answered()

    async with trio.open_nursery() as nursery:
        askings = _askings(phase, instructions, server_round, timeout)
        for slot, (client, asking) in enumerate(askings):
            nursery.start_soon(ask, slot, client, asking, name=f"{phase.name} {client.cid}")
    return _sort(slots, phase, server_round)


def _askings(
    phase: Phase[_Res],
    instructions: Sequence[tuple[ClientLike, InsLike]],
    server_round: int,
    timeout: float | None,
) -> list[tuple[ClientLike, _Asking[_Res]]]:
    messages: dict[tuple[int, bytes], _Shared] = {}
    askings: list[tuple[ClientLike, _Asking[_Res]]] = []
    for client, ins in instructions:
        if isinstance(client, JoinedClient):
            config = write_config(phase.kind, ins.config)
            key = (id(ins.parameters), config)
            shared = messages.setdefault(key, _Shared(phase.kind, config, ins.parameters))
            shared.clients += 1
            askings.append((client, partial(_ask_joined, client, phase, shared, timeout)))
        else:
            method = getattr(client, phase.name)
            call = partial(method, ins, timeout=timeout, group_id=server_round)
            askings.append((client, partial(trio.to_thread.run_sync, call, abandon_on_cancel=True)))
    return askings


async def _ask_joined(
    client: JoinedClient, phase: Phase[_Res], shared: _Shared, timeout: float | None
) -> _Res:
    answer = await client.ask(phase.kind, await shared.take(), timeout)
    assert isinstance(answer, phase.answer)
    return answer


def _report(client: ClientLike, phase: Phase[_Res], server_round: int, error: Exception) -> None:
    # What a client may do to us takes a line; a fault of ours wants its traceback.
    expected = isinstance(error, ClientFailed | ValueError)
    _log.warning(
        "Client %s failed to %s in round %d: %s",
        *(client.cid, phase.name, server_round, error),
        exc_info=None if expected else error,
        extra={"client": client.cid, "round": server_round, "phase": phase.name},
    )


def _sort(slots: Sequence[_Slot[_Res]], phase: Phase[_Res], server_round: int) -> Outcome[_Res]:
    outcome: Outcome[_Res] = Outcome([], [], 0)
    for slot in slots:
        if isinstance(slot, Exception):
            outcome.failures.append(slot)
            continue
        if slot is not None:
            client, result = slot
            if result.status.code != Code.OK:
                # A client's words, and as many as it likes.
                text = f"{result.status.code.name} {result.status.message[:_LONGEST_REASON]}"
                _report(client, phase, server_round, ClientFailed(text))
                outcome.failures.append(slot)
                continue
            outcome.results.append(slot)
        outcome.successes += 1
    return outcome
