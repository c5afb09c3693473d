"""One phase of a round: clients are asked, all at once, and each answers or fails by itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import attrs
import trio

from superlink_trio.bulk import join
from superlink_trio.federation.join import JoinedClient
from superlink_trio.federation.messages import Kind, write_config, write_instruction
from superlink_trio.federation.proxy import ClientFailed, ClientProxy
from superlink_trio.federation.types import Code, EvaluateRes, FitRes

_log = logging.getLogger(__name__)

_Res = TypeVar("_Res", FitRes, EvaluateRes)
Take: TypeAlias = Callable[[ClientProxy, Any], Awaitable[None]]

_LONGEST_REASON = 500

_METHODS = {Kind.FIT: "fit", Kind.EVALUATE: "evaluate"}


@attrs.define
class Outcome(Generic[_Res]):
    """What came of a phase, in the order of its instructions."""

    results: list[tuple[ClientProxy, _Res]]
    """Empty where results were taken as they came."""
    failures: list[tuple[ClientProxy, _Res] | BaseException]
    successes: int


@attrs.define(eq=False)
class _Shared:
    """A message that is the same for some clients: serialised by the first, dropped by the last."""

    kind: Kind
    config: bytes
    parameters: Any
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
    kind: Kind,
    instructions: Sequence[tuple[ClientProxy, Any]],
    *,
    server_round: int,
    timeout: float | None,
    at_once: int | None,
    take: Take | None = None,
    answered: Callable[[], None],
) -> Outcome[Any]:
    """Ask every client, `at_once` at a time or all, each for at most `timeout` seconds.

    With `take`, each result goes there when it comes and is not kept; where that raises, the result
    counts as a failure. `answered` is called after each client, whatever came of it.
    """
    slots: list[Any] = [None] * len(instructions)
    places = trio.CapacityLimiter(math.inf if at_once is None else at_once)

    async def ask(slot: int, client: ClientProxy, asking: Callable[[], Awaitable[Any]]) -> None:
        try:
            async with places:
                result = await asking()
                if result.status.code == Code.OK and take is not None:
                    await take(client, result)
                    result = None
        except Exception as error:
            _report(client, kind, server_round, error)
            slots[slot] = error
        else:
            slots[slot] = (client, result)
        answered()

    async with trio.open_nursery() as nursery:
        askings = _askings(kind, instructions, server_round, timeout)
        for slot, (client, asking) in enumerate(askings):
            nursery.start_soon(ask, slot, client, asking, name=f"{_METHODS[kind]} {client.cid}")
    return _sort(slots, kind, server_round)


def _askings(
    kind: Kind,
    instructions: Sequence[tuple[ClientProxy, Any]],
    server_round: int,
    timeout: float | None,
) -> list[tuple[ClientProxy, Callable[[], Awaitable[Any]]]]:
    messages: dict[tuple[int, bytes], _Shared] = {}
    askings: list[tuple[ClientProxy, Callable[[], Awaitable[Any]]]] = []
    for client, ins in instructions:
        if isinstance(client, JoinedClient):
            config = write_config(kind, ins.config)
            key = (id(ins.parameters), config)
            shared = messages.setdefault(key, _Shared(kind, config, ins.parameters))
            shared.clients += 1
            askings.append((client, partial(_ask_joined, client, shared, timeout)))
        else:
            method = getattr(client, _METHODS[kind])
            call = partial(method, ins, timeout=timeout, group_id=server_round)
            askings.append((client, partial(trio.to_thread.run_sync, call, abandon_on_cancel=True)))
    return askings


async def _ask_joined(client: JoinedClient, shared: _Shared, timeout: float | None) -> Any:
    return await client.ask(shared.kind, await shared.take(), timeout)


def _report(client: ClientProxy, kind: Kind, server_round: int, error: Exception) -> None:
    # What a client may do to us is told in a line; a fault of ours wants its traceback.
    expected = isinstance(error, ClientFailed | ValueError)
    _log.warning(
        "Client %s failed to %s in round %d: %s",
        *(client.cid, _METHODS[kind], server_round, error),
        exc_info=None if expected else error,
        extra={"client": client.cid, "round": server_round, "phase": _METHODS[kind]},
    )


def _sort(slots: Sequence[Any], kind: Kind, server_round: int) -> Outcome[Any]:
    outcome: Outcome[Any] = Outcome([], [], 0)
    for slot in slots:
        if isinstance(slot, Exception):
            outcome.failures.append(slot)
            continue
        client, result = slot
        if result is not None and result.status.code != Code.OK:
            # A client's words, and as many as it likes.
            text = f"{result.status.code.name} {result.status.message[:_LONGEST_REASON]}"
            _report(client, kind, server_round, ClientFailed(text))
            outcome.failures.append(slot)
            continue
        outcome.successes += 1
        if result is not None:
            outcome.results.append(slot)
    return outcome
