from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import trio
from joiners import Joining

from superlink_trio.federation import (
    EvaluateRes,
    FedAvg,
    FitRes,
    NoExamples,
    SimpleClientManager,
    Status,
    UnusableTensor,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from superlink_trio.federation.types import Parameters

CLIENT: Any = object()


def fit_res(value: float, examples: int = 1, **metrics: Any) -> tuple[Any, FitRes]:
    parameters = ndarrays_to_parameters([np.full(2, value, np.float32)])
    return CLIENT, FitRes(Status(), parameters, examples, metrics)


def evaluate_res(loss: float, examples: int, **metrics: Any) -> tuple[Any, EvaluateRes]:
    return CLIENT, EvaluateRes(Status(), loss, examples, metrics)


def value(parameters: Any) -> list[float]:
    [array] = parameters_to_ndarrays(parameters)
    values: list[float] = array.tolist()
    return values


@pytest.mark.parametrize(
    ("available", "fraction", "minimum", "chosen"),
    [(10, 1.0, 2, 10), (10, 0.5, 2, 5), (10, 0.1, 2, 2), (10, 0.59, 2, 5), (0, 1.0, 2, 2)],
)
def test_how_many_are_chosen(available: int, fraction: float, minimum: int, chosen: int) -> None:
    strategy = FedAvg(
        fraction_fit=fraction,
        fraction_evaluate=fraction,
        min_fit_clients=minimum,
        min_evaluate_clients=minimum,
        min_available_clients=4,
    )
    assert strategy.num_fit_clients(available) == (chosen, 4)
    assert strategy.num_evaluation_clients(available) == (chosen, 4)


async def test_clients_that_come_while_the_round_waits_take_part(
    joining: Joining, manager: SimpleClientManager
) -> None:
    strategy = FedAvg(min_fit_clients=1, min_evaluate_clients=1, min_available_clients=3)
    chosen = []

    async def configure() -> None:
        configure = strategy.configure_fit
        chosen.extend(await trio.to_thread.run_sync(configure, 1, Parameters([]), manager))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(configure)
        for _ in range(3):
            await joining.join()
    assert len(chosen) == 3


def test_no_evaluation_with_a_fraction_of_zero(manager: SimpleClientManager) -> None:
    strategy = FedAvg(fraction_evaluate=0)
    assert strategy.configure_evaluate(1, Parameters([]), manager) == []


def test_too_few_available_clients_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    FedAvg(min_fit_clients=3, min_available_clients=2)
    assert "min_available_clients=2 is less than a round needs" in caplog.text


def test_initial_parameters_are_given_away_once(manager: SimpleClientManager) -> None:
    parameters = Parameters([])
    strategy = FedAvg(initial_parameters=parameters)
    assert strategy.initialize_parameters(manager) is parameters
    assert strategy.initialize_parameters(manager) is None


@pytest.mark.parametrize("inplace", [True, False])
def test_models_are_averaged_by_examples(inplace: bool) -> None:
    strategy = FedAvg(
        inplace=inplace, fit_metrics_aggregation_fn=lambda metrics: {"seen": len(metrics)}
    )
    results = [fit_res(1, 1), fit_res(2, 3)]
    parameters, metrics = strategy.aggregate_fit(1, results, [])
    assert value(parameters) == [1.75, 1.75]
    assert metrics == {"seen": 2}


def test_metrics_come_with_their_examples() -> None:
    strategy = FedAvg(fit_metrics_aggregation_fn=lambda metrics: {"seen": repr(metrics)})
    _, metrics = strategy.aggregate_fit(1, [fit_res(1, 1, a=1), fit_res(2, 3, a=2)], [])
    assert metrics == {"seen": "[(1, {'a': 1}), (3, {'a': 2})]"}


def test_results_may_be_taken_one_by_one() -> None:
    aggregation = FedAvg().begin_fit(1)
    assert aggregation is not None
    for result in (fit_res(1, 1), fit_res(2, 3)):
        aggregation.add(*result)
    with pytest.raises(UnusableTensor):
        aggregation.add(CLIENT, FitRes(Status(), Parameters([b"junk"]), 1, {}))
    assert value(aggregation.finish([])[0]) == [1.75, 1.75]


def test_a_subclass_with_its_own_aggregation_gets_all_results() -> None:
    class Own(FedAvg):
        def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
            return super().aggregate_fit(server_round, results, failures)

    assert Own().begin_fit(1) is None
    assert FedAvg(inplace=False).begin_fit(1) is None
    assert value(Own().aggregate_fit(1, [fit_res(1, 1), fit_res(2, 3)], [])[0]) == [1.75, 1.75]


@pytest.mark.parametrize("accepted", [True, False])
def test_failures_may_spoil_a_round(accepted: bool) -> None:
    strategy = FedAvg(accept_failures=accepted)
    parameters, _ = strategy.aggregate_fit(1, [fit_res(1)], [ValueError()])
    loss, _ = strategy.aggregate_evaluate(1, [evaluate_res(0.5, 1)], [ValueError()])
    assert (parameters is not None, loss is not None) == (accepted, accepted)


def test_a_round_without_results_changes_nothing() -> None:
    assert FedAvg().aggregate_fit(1, [], []) == (None, {})
    assert FedAvg().aggregate_evaluate(1, [], []) == (None, {})


def test_losses_are_averaged_by_examples() -> None:
    strategy = FedAvg(evaluate_metrics_aggregation_fn=lambda metrics: {"seen": len(metrics)})
    results = [evaluate_res(1, 1), evaluate_res(2, 3)]
    assert strategy.aggregate_evaluate(1, results, []) == (1.75, {"seen": 2})


def test_a_mean_over_no_examples_says_so() -> None:
    with pytest.raises(NoExamples, match="num_examples is 0"):
        FedAvg().aggregate_fit(1, [fit_res(1, 0)], [])
    with pytest.raises(NoExamples, match="num_examples is 0"):
        FedAvg().aggregate_evaluate(1, [evaluate_res(1, 0)], [])


def test_evaluation_on_the_server() -> None:
    strategy = FedAvg(evaluate_fn=lambda at, arrays, config: (float(arrays[0].sum()), {"at": at}))
    assert strategy.evaluate(3, ndarrays_to_parameters([np.ones(2)])) == (2, {"at": 3})
    assert FedAvg().evaluate(3, Parameters([])) is None
