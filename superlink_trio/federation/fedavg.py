"""Federated averaging."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs

from superlink_trio.federation.arrays import NDArrays, parameters_to_ndarrays
from superlink_trio.federation.manager import ClientManager
from superlink_trio.federation.mean import NoExamples, WeightedMean
from superlink_trio.federation.proxy import ClientProxy
from superlink_trio.federation.strategy import (
    EvaluateFailure,
    FitAggregation,
    FitFailure,
    Strategy,
)
from superlink_trio.federation.types import (
    Config,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    Metrics,
    Parameters,
)

_log = logging.getLogger(__name__)

EvaluateFn: TypeAlias = Callable[[int, NDArrays, Config], tuple[float, Metrics] | None]
ConfigFn: TypeAlias = Callable[[int], Config]
MetricsFn: TypeAlias = Callable[[list[tuple[int, Metrics]]], Metrics]


# As a class that is written by hand: subclasses may add attributes, and it is compared by identity.
@attrs.define(kw_only=True, eq=False, repr=False, slots=False)
class FedAvg(Strategy):
    """The mean of the clients' models, weighted by their numbers of examples.

    Arguments:
        fraction_fit, fraction_evaluate: The share of the connected clients that trains and
            evaluates in a round, from 0 to 1; 0 leaves the evaluation out.
        min_fit_clients, min_evaluate_clients: How many do so at least.
        min_available_clients: How many have to be connected before a round begins.
        evaluate_fn: Evaluates a model on the server, as `(round, arrays, {}) -> (loss, metrics)`.
        on_fit_config_fn, on_evaluate_config_fn: Give the config of a round's instructions.
        accept_failures: Whether a round counts in which a client failed.
        initial_parameters: The model to start from; given away at the start, not kept.
        fit_metrics_aggregation_fn, evaluate_metrics_aggregation_fn: Make the metrics of a round of
            the clients', given as `[(num_examples, metrics)]`.
        inplace: Whether results are averaged as they come in, which takes the memory of about two
            models. Otherwise, and in a subclass with an `aggregate_fit` of its own, they are kept
            until all are there, and averaged in the order of the clients: to the last digit
            the same in every run.

    A result that cannot be averaged (other shapes than the first one's, a negative number of
    examples, bytes that are no arrays of numbers) is a failure of that client.

    Source: McMahan et al., Communication-efficient learning of deep networks from decentralized
    data (2017), https://arxiv.org/abs/1602.05629
    """

    fraction_fit: float = 1.0
    fraction_evaluate: float = 1.0
    min_fit_clients: int = 2
    min_evaluate_clients: int = 2
    min_available_clients: int = 2
    evaluate_fn: EvaluateFn | None = None
    on_fit_config_fn: ConfigFn | None = None
    on_evaluate_config_fn: ConfigFn | None = None
    accept_failures: bool = True
    initial_parameters: Parameters | None = None
    fit_metrics_aggregation_fn: MetricsFn | None = None
    evaluate_metrics_aggregation_fn: MetricsFn | None = None
    inplace: bool = True

    def __attrs_post_init__(self) -> None:
        if self.min_available_clients < max(self.min_fit_clients, self.min_evaluate_clients):
            _log.warning(
                "min_available_clients=%d is less than a round needs (%d to train, %d to evaluate):"
                " a round that begins with too few clients is left out",
                *(self.min_available_clients, self.min_fit_clients, self.min_evaluate_clients),
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(accept_failures={self.accept_failures})"

    def num_fit_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Give how many train, of that many, and how many have to be connected."""
        number = int(num_available_clients * self.fraction_fit)
        return max(number, self.min_fit_clients), self.min_available_clients

    def num_evaluation_clients(self, num_available_clients: int) -> tuple[int, int]:
        """Give how many evaluate, of that many, and how many have to be connected."""
        number = int(num_available_clients * self.fraction_evaluate)
        return max(number, self.min_evaluate_clients), self.min_available_clients

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Give `initial_parameters`, once."""
        parameters, self.initial_parameters = self.initial_parameters, None
        return parameters

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Choose who trains, at random."""
        ins = FitIns(parameters, _config(self.on_fit_config_fn, server_round))
        return [(client, ins) for client in _sample(client_manager, self.num_fit_clients)]

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        """Choose who evaluates, at random."""
        if self.fraction_evaluate == 0:
            return []
        ins = EvaluateIns(parameters, _config(self.on_evaluate_config_fn, server_round))
        return [(client, ins) for client in _sample(client_manager, self.num_evaluation_clients)]

    def begin_fit(self, server_round: int) -> FitAggregation | None:
        """Average as results come in, unless `aggregate_fit` is to have them all."""
        overridden = type(self).aggregate_fit is not FedAvg.aggregate_fit
        return _Averaging(self) if self.inplace and not overridden else None

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[FitFailure],
    ) -> tuple[Parameters | None, Metrics]:
        """Average. Raises NoExamples when there were none, ValueError for an unusable result."""
        averaging = _Averaging(self)
        for client, result in results:
            averaging.add(client, result)
        return averaging.finish(failures)

    def aggregate_evaluate(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, EvaluateRes]],
        failures: list[EvaluateFailure],
    ) -> tuple[float | None, Metrics]:
        """Average the losses. Raises NoExamples when there were no examples at all."""
        if not results or (failures and not self.accept_failures):
            return None, {}
        examples = sum(result.num_examples for _, result in results)
        if examples == 0:
            raise NoExamples("no loss was computed on any example: num_examples is 0 in each")
        loss = sum(result.num_examples * result.loss for _, result in results) / examples
        metrics = [(result.num_examples, result.metrics) for _, result in results]
        return loss, _aggregate(self.evaluate_metrics_aggregation_fn, metrics)

    def evaluate(self, server_round: int, parameters: Parameters) -> tuple[float, Metrics] | None:
        """Evaluate by `evaluate_fn`, if there is one."""
        if self.evaluate_fn is None:
            return None
        return self.evaluate_fn(server_round, parameters_to_ndarrays(parameters), {})


class _Averaging:
    """One round of FedAvg."""

    def __init__(self, strategy: FedAvg) -> None:
        self._strategy = strategy
        self._mean = WeightedMean()
        self._metrics: list[tuple[int, Metrics]] = []

    def add(self, client: ClientProxy, result: FitRes) -> None:
        self._mean.add(result.parameters.tensors, result.num_examples)
        self._metrics.append((result.num_examples, result.metrics))

    def finish(self, failures: Sequence[FitFailure]) -> tuple[Parameters | None, Metrics]:
        if not self._metrics or (failures and not self._strategy.accept_failures):
            return None, {}
        parameters = self._mean.take()
        return parameters, _aggregate(self._strategy.fit_metrics_aggregation_fn, self._metrics)


def _sample(
    client_manager: ClientManager, numbers: Callable[[int], tuple[int, int]]
) -> list[ClientProxy]:
    # Those that are there once there are enough count, and not those that were there before.
    _, minimum = numbers(client_manager.num_available())
    client_manager.wait_for(minimum)
    size, minimum = numbers(client_manager.num_available())
    return client_manager.sample(num_clients=size, min_num_clients=minimum)


def _config(function: ConfigFn | None, server_round: int) -> Config:
    return {} if function is None else function(server_round)


def _aggregate(function: MetricsFn | None, metrics: list[tuple[int, Metrics]]) -> Metrics:
    return {} if function is None else function(metrics)
