"""The round loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ParamSpec, Protocol, TypeVar

import attrs
import trio
from attrs import validators

from superlink_trio.federation.fedavg import FedAvg
from superlink_trio.federation.history import History
from superlink_trio.federation.manager import SimpleClientManager
from superlink_trio.federation.phase import EVALUATE, FIT, Outcome, Phase, Take, ask_all
from superlink_trio.federation.protocols import (
    AggregationLike,
    ClientLike,
    ClientManagerLike,
    InsLike,
    ParametersLike,
    StrategyLike,
)
from superlink_trio.federation.proxy import ClientFailed
from superlink_trio.federation.types import (
    Code,
    EvaluateRes,
    FitRes,
    GetParametersIns,
    Parameters,
)
from superlink_trio.logs.wording import counted
from superlink_trio.wire.runs import Scalar

_log = logging.getLogger(__name__)

_T = TypeVar("_T")
_P = ParamSpec("_P")
_Res = TypeVar("_Res", FitRes, EvaluateRes)


@attrs.frozen
class ServerConfig:
    """How long a run is: the number of rounds, and the seconds a client has for each answer."""

    num_rounds: int = attrs.field(
        default=1, validator=[validators.instance_of(int), validators.ge(0)]
    )
    round_timeout: float | None = attrs.field(
        default=None, validator=validators.optional(validators.gt(0))
    )


class Observer(Protocol):
    """Notified of every step of a run; called on the event loop, so it must not block."""

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        """Handle the begin of a round."""

    def phase_begins(self, name: str, clients: int) -> None:
        """Handle the begin of a phase, `fit` or `evaluate`, with so many clients."""

    def answered(self) -> None:
        """Handle the answer of one of them, or its failure."""


class _Nobody:
    """Watches runs that nobody watches."""

    def round_begins(self, server_round: int, num_rounds: int) -> None:
        pass

    def phase_begins(self, name: str, clients: int) -> None:
        pass

    def answered(self) -> None:
        pass


class Server:
    """Runs rounds: has clients train and evaluate as a strategy says, and keeps the model.

    The strategy's methods block, so each runs in a thread; clients come and go, and answer,
    meanwhile. `history` and `parameters` hold what there is so far, also after a run that was
    cancelled.
    """

    def __init__(
        self,
        *,
        client_manager: ClientManagerLike | None = None,
        strategy: StrategyLike | None = None,
    ) -> None:
        self._client_manager: ClientManagerLike = (
            SimpleClientManager() if client_manager is None else client_manager
        )
        self.strategy: StrategyLike = FedAvg() if strategy is None else strategy
        self.parameters: ParametersLike = Parameters([])
        self.history = History()
        self.max_workers: int | None = None
        self.observer: Observer = _Nobody()
        # "Never two at once" is what a strategy is promised.
        self._thread = trio.CapacityLimiter(1)

    def client_manager(self) -> ClientManagerLike:
        """Give what knows the clients."""
        return self._client_manager

    def set_max_workers(self, max_workers: int | None) -> None:
        """Let at most that many clients work at the same time; None: all that were chosen.

        Those are no threads, as they are in Flower's server. A client's timeout begins when it is
        asked. Raises ValueError for less than one.
        """
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers is {max_workers}: give at least 1, or None for no limit")
        self.max_workers = max_workers

    def set_strategy(self, strategy: StrategyLike) -> None:
        """Replace the strategy."""
        self.strategy = strategy

    async def fit(self, num_rounds: int, timeout: float | None) -> tuple[History, float]:
        """Run rounds; give the History and the seconds they took.

        A client has `timeout` seconds for each answer; None waits for ever. Raises what the
        strategy raises.
        """
        self.history = History()
        self._thread = trio.CapacityLimiter(1)
        self.parameters = await self._initial_parameters(timeout)
        await self._evaluate(0)
        began = trio.current_time()
        for server_round in range(1, num_rounds + 1):
            self.observer.round_begins(server_round, num_rounds)
            await self.fit_round(server_round, timeout)
            await self._evaluate(server_round)
            await self.evaluate_round(server_round, timeout)
        return self.history, trio.current_time() - began

    async def fit_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[ParametersLike | None, Mapping[str, Scalar], Outcome[FitRes]] | None:
        """Have clients train, and replace the model by what the strategy makes of their results.

        Gives that model or None, the metrics, and what the clients answered; None when the
        strategy chose no client.
        """
        instructions = await self._call(
            server_round,
            self.strategy.configure_fit,
            server_round=server_round,
            parameters=self.parameters,
            client_manager=self._client_manager,
        )
        if not instructions:
            _log.info("Round %d: no clients chosen to fit", server_round)
            return None
        # An optional part of a strategy, which those of flwr do not have.
        begin_fit: Callable[[int], AggregationLike | None]
        begin_fit = getattr(self.strategy, "begin_fit", lambda _: None)
        aggregation = await self._call(server_round, begin_fit, server_round)
        take = None if aggregation is None else partial(self._in_thread, aggregation.add)
        outcome = await self._ask(FIT, instructions, server_round, timeout, take)
        del instructions
        aggregated: tuple[ParametersLike | None, Mapping[str, Scalar]]
        if aggregation is None:
            aggregated = await self._call(
                server_round,
                self.strategy.aggregate_fit,
                *(server_round, outcome.results, outcome.failures),
            )
        else:
            aggregated = await self._call(server_round, aggregation.finish, outcome.failures)
        parameters, metrics = aggregated
        if parameters is not None:
            self.parameters = parameters
        self.history.add_metrics_distributed_fit(server_round, metrics)
        return parameters, metrics, outcome

    async def evaluate_round(
        self, server_round: int, timeout: float | None
    ) -> tuple[float | None, Mapping[str, Scalar], Outcome[EvaluateRes]] | None:
        """Have clients evaluate the model.

        Gives the loss or None, the metrics, and what the clients answered; None when the strategy
        chose no client.
        """
        instructions = await self._call(
            server_round,
            self.strategy.configure_evaluate,
            server_round=server_round,
            parameters=self.parameters,
            client_manager=self._client_manager,
        )
        if not instructions:
            _log.info("Round %d: no clients chosen to evaluate", server_round)
            return None
        outcome = await self._ask(EVALUATE, instructions, server_round, timeout, None)
        loss, metrics = await self._call(
            server_round,
            self.strategy.aggregate_evaluate,
            *(server_round, outcome.results, outcome.failures),
        )
        if loss is not None:
            _log.info("Round %d: loss %g", server_round, loss, extra={"round": server_round})
            self.history.add_loss_distributed(server_round, loss)
            self.history.add_metrics_distributed(server_round, metrics)
        return loss, metrics, outcome

    async def _ask(
        self,
        phase: Phase[_Res],
        instructions: Sequence[tuple[ClientLike, InsLike]],
        server_round: int,
        timeout: float | None,
        take: Take[_Res] | None,
    ) -> Outcome[_Res]:
        self.observer.phase_begins(phase.name, len(instructions))
        began = trio.current_time()
        outcome = await ask_all(
            phase,
            instructions,
            server_round=server_round,
            timeout=timeout,
            at_once=self.max_workers,
            take=take,
            answered=self.observer.answered,
        )
        seconds, failures = trio.current_time() - began, len(outcome.failures)
        _log.info(
            "Round %d: %s: %s, %s, %.2f s",
            *(server_round, phase.name, counted(outcome.successes, "result")),
            *(counted(failures, "failure"), seconds),
            extra={"round": server_round, "phase": phase.name, "failures": failures},
        )
        return outcome

    async def _initial_parameters(self, timeout: float | None) -> ParametersLike:
        parameters = await self._call(
            0, self.strategy.initialize_parameters, client_manager=self._client_manager
        )
        if parameters is not None:
            _log.info("Initial parameters: from the strategy")
            return parameters
        while True:
            # None if the only one left at this moment; one that has failed is disconnected.
            for client in await self._call(0, self._client_manager.sample, 1):
                try:
                    return await self._parameters_of(client, timeout)
                except ClientFailed as error:
                    _log.warning("Client %s gave no initial parameters: %s", client.cid, error)

    async def _parameters_of(self, client: ClientLike, timeout: float | None) -> ParametersLike:
        ins = GetParametersIns({})
        answer = await self._call(0, client.get_parameters, ins, timeout=timeout, group_id=0)
        if answer.status.code == Code.OK:
            _log.info("Initial parameters: from client %s", client.cid)
        else:
            _log.warning("Client %s has no parameters: starting with none", client.cid)
        return answer.parameters

    async def _evaluate(self, server_round: int) -> None:
        began = trio.current_time()
        result = await self._call(
            server_round, self.strategy.evaluate, server_round, parameters=self.parameters
        )
        if result is None:
            return
        loss, metrics = result
        _log.info(
            "Round %d: central evaluation: loss %g, %.2f s",
            *(server_round, loss, trio.current_time() - began),
            extra={"round": server_round},
        )
        self.history.add_loss_centralized(server_round, loss)
        self.history.add_metrics_centralized(server_round, metrics)

    async def _call(
        self, at: int, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Call the strategy; an error says where it comes from."""
        try:
            return await self._in_thread(function, *args, **kwargs)
        except Exception as error:
            name = getattr(function, "__qualname__", repr(function))
            error.add_note(f"raised by {name} in round {at}")
            raise

    async def _in_thread(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        # Abandoned when the run is cancelled: whoever stops a run does not wait for a strategy
        # that computes, or waits for clients.
        return await trio.to_thread.run_sync(
            partial(function, *args, **kwargs), abandon_on_cancel=True, limiter=self._thread
        )
