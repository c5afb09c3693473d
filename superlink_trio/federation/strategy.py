"""What a strategy decides: who takes part in a round, and what becomes of the answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, TypeAlias

from superlink_trio.federation.manager import ClientManager
from superlink_trio.federation.proxy import ClientProxy
from superlink_trio.federation.types import (
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
)

FitFailure: TypeAlias = tuple[ClientProxy, FitRes] | BaseException
EvaluateFailure: TypeAlias = tuple[ClientProxy, EvaluateRes] | BaseException


class FitAggregation(Protocol):
    """One round's aggregation, that takes the results as they come in.

    Its methods are called one at a time, though from different threads.
    """

    def add(self, client: ClientProxy, result: FitRes) -> None:
        """Take in one result; it is not kept for anybody else.

        An exception makes this result a failure of the round.
        """

    def finish(self, failures: Sequence[FitFailure]) -> tuple[Parameters | None, Metrics]:
        """Give what `aggregate_fit` would give."""


class Strategy(ABC):
    """The decisions of a run.

    The server calls these methods in threads of their own, so they may block and compute; never
    two at once. It goes by their names alone: a strategy of `flwr` serves as it is, and so does
    any object that has them. Whatever one of them raises ends the run.
    """

    @abstractmethod
    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Give the model to start from; None has the server ask a client for its own."""

    @abstractmethod
    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Choose who trains in this round, and on what. An empty list leaves the training out."""

    @abstractmethod
    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[FitFailure],
    ) -> tuple[Parameters | None, Metrics]:
        """Make one model of the results, which are in the order of `configure_fit`.

        None leaves the model as it is.
        """

    @abstractmethod
    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Choose who evaluates in this round. An empty list leaves the evaluation out."""

    @abstractmethod
    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[EvaluateFailure],
    ) -> tuple[float | None, Metrics]:
        """Make one loss of the results. None leaves the round out of the History."""

    @abstractmethod
    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Evaluate the model here, on the server. None: there is no result."""

    def begin_fit(self, server_round: int) -> FitAggregation | None:
        """Aggregate a round's results as they come in, instead of all at once in the end.

        Optional, and a matter of memory: with the default, None, the server keeps every result
        of the round for `aggregate_fit`.
        """
        return None
