"""The round loop, with clients that join in memory."""

from __future__ import annotations

import enum
import logging
import threading
from typing import Any

import numpy as np
import pytest
import trio
from joiners import Joining, Stream, adding, answer_adding, fit_res, weights
from trio.testing import MockClock

from superlink_trio.federation import (
    ClientFailed,
    ClientProxy,
    ClientTimedOut,
    Code,
    EvaluateRes,
    FedAvg,
    FitIns,
    FitRes,
    GetParametersRes,
    NoExamples,
    Server,
    ServerConfig,
    SimpleClientManager,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from superlink_trio.wire import rounds_pb2 as pb

START = ndarrays_to_parameters([np.zeros(3, np.float32)])


def server_of(manager: SimpleClientManager, **options: Any) -> Server:
    return Server(client_manager=manager, strategy=FedAvg(**options))


def model(server: Server) -> list[float]:
    [array] = parameters_to_ndarrays(server.parameters)
    values: list[float] = array.tolist()
    return values


async def fail(stream: Stream, message: Any) -> None:
    stream.leave()


async def refuse(stream: Stream, message: pb.ServerMessage) -> None:
    """Implement nothing."""
    if message.HasField("fit_ins"):
        status = pb.Status(code="FIT_NOT_IMPLEMENTED", message="no fit")
        await stream.say(pb.ClientMessage(fit_res=pb.FitRes(status=status)))
    elif message.HasField("get_parameters_ins"):
        status = pb.Status(code="GET_PARAMETERS_NOT_IMPLEMENTED")
        res = pb.GetParametersRes(status=status)
        await stream.say(pb.ClientMessage(get_parameters_res=res))
    else:
        status = pb.Status(code="EVALUATE_NOT_IMPLEMENTED", message="no evaluate")
        await stream.say(pb.ClientMessage(evaluate_res=pb.EvaluateRes(status=status)))


async def test_three_rounds(
    joining: Joining, manager: SimpleClientManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await joining.join_as(adding(1))
    await joining.join_as(adding(3))
    server = server_of(
        manager,
        evaluate_fn=lambda at, arrays, config: (float(arrays[0].sum()), {"round": at}),
        fit_metrics_aggregation_fn=lambda metrics: {"clients": len(metrics)},
        evaluate_metrics_aggregation_fn=lambda metrics: {"clients": len(metrics)},
    )
    history, seconds = await server.fit(3, None)
    assert history is server.history
    assert seconds >= 0
    assert history.losses_distributed == [(1, 2), (2, 4), (3, 6)]
    assert history.losses_centralized == [(0, 0), (1, 6), (2, 12), (3, 18)]
    assert history.metrics_centralized == {"round": [(0, 0), (1, 1), (2, 2), (3, 3)]}
    assert history.metrics_distributed_fit == {"clients": [(1, 2), (2, 2), (3, 2)]}
    assert history.metrics_distributed == {"clients": [(1, 2), (2, 2), (3, 2)]}
    assert model(server) == [6, 6, 6]
    assert "Round 3: fit: 2 results, 0 failures" in caplog.text
    assert "Round 3: evaluate: 2 results, 0 failures" in caplog.text


async def test_no_rounds_are_an_evaluation_of_the_start(manager: SimpleClientManager) -> None:
    server = server_of(
        manager, initial_parameters=START, evaluate_fn=lambda at, arrays, config: (0.5, {})
    )
    history, _ = await server.fit(0, None)
    assert history.losses_centralized == [(0, 0.5)]


async def test_clients_work_at_the_same_time(
    joining: Joining, manager: SimpleClientManager
) -> None:
    at_work = 0
    everyone = trio.Event()

    async def together(stream: Stream, message: pb.ServerMessage) -> None:
        nonlocal at_work
        if message.HasField("fit_ins"):
            at_work += 1
            if at_work == 20:
                everyone.set()
            await everyone.wait()
        await stream.say(answer_adding(message, 1))

    for _ in range(20):
        await joining.join_as(together)
    server = server_of(manager, initial_parameters=START)
    with trio.fail_after(30):
        await server.fit(1, None)
    assert model(server) == [1, 1, 1]


@pytest.mark.parametrize(("max_workers", "most"), [(None, 7), (3, 3), (1, 1)])
async def test_at_most_max_workers_clients_work_at_the_same_time(
    max_workers: int | None, most: int, joining: Joining, manager: SimpleClientManager
) -> None:
    at_work, seen = 0, []

    async def count(stream: Stream, message: pb.ServerMessage) -> None:
        nonlocal at_work
        at_work += 1
        await trio.testing.wait_all_tasks_blocked()
        seen.append(at_work)
        at_work -= 1
        await stream.say(answer_adding(message, 1))

    for _ in range(7):
        await joining.join_as(count)
    server = server_of(manager, initial_parameters=START)
    server.set_max_workers(max_workers)
    assert server.max_workers == max_workers
    await server.fit(1, None)
    assert model(server) == [1, 1, 1]
    assert len(seen) == 14
    assert max(seen) == most


def test_max_workers_are_one_at_least(manager: SimpleClientManager) -> None:
    with pytest.raises(ValueError, match="max_workers is 0"):
        server_of(manager).set_max_workers(0)


@pytest.mark.parametrize("behaviour", [fail, refuse])
async def test_a_client_that_fails_is_a_failure_of_the_round_and_nothing_else(
    joining: Joining,
    manager: SimpleClientManager,
    caplog: pytest.LogCaptureFixture,
    behaviour: Any,
) -> None:
    caplog.set_level(logging.INFO)
    await joining.join_as(adding(1))
    await joining.join_as(behaviour)
    failing = list(manager.all())[1]
    server = server_of(manager)
    server.parameters = START
    fitted = await server.fit_round(1, None)
    assert fitted is not None
    assert (fitted[2].successes, len(fitted[2].failures)) == (1, 1)
    assert "Round 1: fit: 1 result, 1 failure" in caplog.text
    assert f"Client {failing} failed to fit in round 1: " in caplog.text


async def test_a_timeout_is_a_failure_of_the_round(
    joining: Joining, manager: SimpleClientManager, mock_clock: MockClock
) -> None:
    await joining.join_as(adding(1))
    asked = trio.Event()

    async def stall(stream: Stream, message: Any) -> None:
        asked.set()

    stalled = await joining.join_as(stall)
    server = server_of(manager, initial_parameters=START)
    server.parameters = START
    async with trio.open_nursery() as nursery:

        async def fit() -> None:
            fitted = await server.fit_round(1, 60)
            assert fitted is not None
            assert [type(failure) for failure in fitted[2].failures] == [ClientTimedOut]

        nursery.start_soon(fit)
        await asked.wait()
        mock_clock.jump(61)
    assert model(server) == [1, 1, 1]
    assert stalled.ended.is_set()
    assert manager.num_available() == 1


async def test_a_result_that_cannot_be_averaged_is_a_failure(
    joining: Joining, manager: SimpleClientManager, caplog: pytest.LogCaptureFixture
) -> None:
    turn = trio.Event()

    async def first(stream: Stream, message: pb.ServerMessage) -> None:
        await stream.say(answer_adding(message, 1))
        turn.set()

    async def misshapen(stream: Stream, message: pb.ServerMessage) -> None:
        await turn.wait()
        for _ in range(1000):
            await trio.lowlevel.checkpoint()
        await stream.say(fit_res(np.zeros((7, 7))))

    await joining.join_as(first)
    await joining.join_as(misshapen)
    server = server_of(manager)
    server.parameters = START
    fitted = await server.fit_round(1, None)
    assert fitted is not None
    assert (fitted[2].successes, len(fitted[2].failures)) == (1, 1)
    assert "shape" in caplog.text


async def test_rounds_without_any_result_leave_the_model_alone(
    joining: Joining, manager: SimpleClientManager
) -> None:
    await joining.join_as(refuse)
    await joining.join_as(refuse)
    server = server_of(manager, initial_parameters=START)
    history, _ = await server.fit(2, None)
    assert model(server) == [0, 0, 0]
    assert history.losses_distributed == []


async def test_a_client_that_joins_later_is_used_in_the_next_round(
    joining: Joining, manager: SimpleClientManager
) -> None:
    class Inviting:
        def round_begins(self, server_round: int, num_rounds: int) -> None:
            pass

        def phase_begins(self, name: str, clients: int) -> None:
            sizes.append((name, clients))
            if sizes == [("fit", 2)]:
                joining._nursery.start_soon(joining.join_as, adding(5))

        def answered(self) -> None:
            pass

    sizes: list[tuple[str, int]] = []
    await joining.join_as(adding(1))
    await joining.join_as(adding(1))
    server = server_of(manager, initial_parameters=START, fraction_evaluate=0)
    server.observer = Inviting()
    await server.fit(2, None)
    assert sizes == [("fit", 2), ("fit", 3)]


async def test_initial_parameters_come_from_a_client(
    joining: Joining, manager: SimpleClientManager
) -> None:
    await joining.join_as(adding(1))
    server = server_of(manager)
    await server.fit(0, None)
    assert model(server) == [0, 0, 0]


async def test_initial_parameters_are_asked_of_another_client_when_one_fails(
    joining: Joining, manager: SimpleClientManager, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        await joining.join_as(fail)
    await joining.join_as(adding(1))
    server = server_of(manager)
    await server.fit(0, None)
    assert model(server) == [0, 0, 0]


async def test_a_client_without_parameters_is_no_obstacle(
    joining: Joining, manager: SimpleClientManager, caplog: pytest.LogCaptureFixture
) -> None:
    await joining.join_as(refuse)
    server = server_of(manager)
    await server.fit(0, None)
    assert server.parameters.tensors == []
    assert "starting with none" in caplog.text


async def test_no_examples_end_the_run_with_a_word(
    joining: Joining, manager: SimpleClientManager
) -> None:
    await joining.join_as(adding(1, examples=0))
    await joining.join_as(adding(1, examples=0))
    with pytest.raises(NoExamples, match="num_examples is 0") as caught:
        await server_of(manager).fit(1, None)
    assert any("in round 1" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "method",
    [
        "initialize_parameters",
        "configure_fit",
        "aggregate_fit",
        "configure_evaluate",
        "aggregate_evaluate",
        "evaluate",
    ],
)
async def test_what_a_strategy_raises_ends_the_run(
    joining: Joining, manager: SimpleClientManager, method: str
) -> None:
    def broken(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("broken")

    strategy = type("Broken", (FedAvg,), {method: broken})()
    await joining.join_as(adding(1))
    await joining.join_as(adding(1))
    with pytest.raises(ZeroDivisionError, match="broken"):
        await Server(client_manager=manager, strategy=strategy).fit(1, None)


async def test_strategies_run_in_a_thread_and_never_twice_at_once(
    joining: Joining, manager: SimpleClientManager
) -> None:
    inside = threading.Lock()
    threads = set()

    class Watched(FedAvg):
        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name not in ("configure_fit", "aggregate_fit", "evaluate", "aggregate_evaluate"):
                return value

            def watched(*args: Any, **kwargs: Any) -> Any:
                assert inside.acquire(blocking=False)
                threads.add(threading.current_thread())
                try:
                    return value(*args, **kwargs)
                finally:
                    inside.release()

            return watched

    await joining.join_as(adding(1))
    await joining.join_as(adding(1))
    await Server(client_manager=manager, strategy=Watched()).fit(2, None)
    assert threads
    assert threading.main_thread() not in threads


async def test_the_loop_goes_on_while_a_strategy_computes(
    joining: Joining, manager: SimpleClientManager
) -> None:
    class Slow(FedAvg):
        def evaluate(self, server_round: int, parameters: Any) -> None:
            computing.set()
            assert joined.wait(30)

    computing, joined = threading.Event(), threading.Event()
    server = Server(client_manager=manager, strategy=Slow(initial_parameters=START))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.fit, 0, None)
        while not computing.is_set():
            await trio.lowlevel.checkpoint()
        await joining.join_as(adding(1))
        assert manager.num_available() == 1
        joined.set()


async def test_a_cancelled_run_does_not_wait_for_its_strategy(
    joining: Joining, manager: SimpleClientManager
) -> None:
    class Slow(FedAvg):
        def evaluate(self, server_round: int, parameters: Any) -> None:
            computing.set()
            assert released.wait(30)

    computing, released = threading.Event(), threading.Event()
    server = Server(client_manager=manager, strategy=Slow(initial_parameters=START))
    try:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.fit, 0, None)
                while not computing.is_set():
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
    finally:
        released.set()


async def test_each_client_gets_the_config_that_is_meant_for_it(
    joining: Joining, manager: SimpleClientManager
) -> None:
    messages = []

    async def record(stream: Stream, message: pb.ServerMessage) -> None:
        messages.append(message)
        await stream.say(answer_adding(message, 1))

    class PerClient(FedAvg):
        def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
            pairs = super().configure_fit(server_round, parameters, client_manager)
            for number, (_, ins) in enumerate(pairs):
                own = FitIns(ins.parameters, {"odd": number % 2})
                pairs[number] = (pairs[number][0], own)
            return pairs

    for _ in range(4):
        await joining.join_as(record)
    server = Server(
        client_manager=manager,
        strategy=PerClient(initial_parameters=START, fraction_evaluate=0),
    )
    await server.fit(1, None)
    assert sorted(m.fit_ins.config["odd"].sint64_value for m in messages) == [0, 0, 1, 1]
    assert all(weights(m.fit_ins.parameters).tolist() == [0, 0, 0] for m in messages)


class Local(ClientProxy):
    """A client in this process, that a strategy or manager may bring along."""

    def get_properties(self, ins: Any, timeout: Any, group_id: Any = None) -> Any:
        raise NotImplementedError

    def get_parameters(self, ins: Any, timeout: Any, group_id: Any = None) -> Any:
        return GetParametersRes(Status(), START)

    def fit(self, ins: Any, timeout: Any, group_id: Any = None) -> Any:
        [array] = parameters_to_ndarrays(ins.parameters)
        return FitRes(Status(), ndarrays_to_parameters([array + group_id]), 1, {})

    def evaluate(self, ins: Any, timeout: Any, group_id: Any = None) -> Any:
        if timeout is not None:
            raise ClientFailed("not in the mood")
        return EvaluateRes(Status(), 0.5, 1, {})

    def reconnect(self, ins: Any, timeout: Any, group_id: Any = None) -> Any:
        raise NotImplementedError


async def test_clients_of_another_kind_are_called_in_threads(manager: SimpleClientManager) -> None:
    manager.register(Local("a"))
    manager.register(Local("b"))
    server = server_of(manager)
    history, _ = await server.fit(2, None)
    assert model(server) == [3, 3, 3]
    assert history.losses_distributed == [(1, 0.5), (2, 0.5)]
    history, _ = await server.fit(1, 1.0)
    assert history.losses_distributed == []


@pytest.mark.parametrize("arguments", [(-1,), (1.5,), (1, 0), (1, -2)])
def test_configs_that_make_no_sense_are_refused(arguments: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        ServerConfig(*arguments)


def test_the_config_has_defaults() -> None:
    assert ServerConfig() == ServerConfig(num_rounds=1, round_timeout=None)


def test_codes_equal_those_of_another_package() -> None:
    other = enum.Enum("Code", {"OK": 0, "FIT_NOT_IMPLEMENTED": 3})  # type: ignore[misc]
    assert other["OK"] == Code.OK == other["OK"]
    assert other["FIT_NOT_IMPLEMENTED"] == Code.FIT_NOT_IMPLEMENTED != other["OK"]
    assert hash(other["OK"]) == hash(Code.OK)
    assert Code.OK != 0
