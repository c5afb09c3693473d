"""One client's conversation, and everything that may become of it."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import trio
from joiners import LIMIT, Joining, Stream, adding, fit_res
from trio.testing import MockClock, wait_all_tasks_blocked

from superlink_trio.federation import (
    BadAnswer,
    ClientFailed,
    ClientLeft,
    ClientManager,
    ClientTimedOut,
    EvaluateIns,
    FitIns,
    GetParametersIns,
    GetPropertiesIns,
    ReconnectIns,
    SimpleClientManager,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from superlink_trio.federation.join import JoinedClient
from superlink_trio.federation.messages import (
    Kind,
    write_config,
    write_instruction,
    write_reconnect,
)
from superlink_trio.rpc import Status
from superlink_trio.wire import rounds_pb2 as pb

MODEL = ndarrays_to_parameters([np.zeros(3, np.float32)])
FIT = b"".join(write_instruction(Kind.FIT, write_config(Kind.FIT, {"lr": 0.1}), MODEL))


def only(manager: ClientManager) -> JoinedClient:
    [client] = manager.all().values()
    assert isinstance(client, JoinedClient)
    return client


async def failing(client: JoinedClient, error: type[Exception], timeout: Any = None) -> str:
    with pytest.raises(error) as caught:
        await client.ask(Kind.FIT, FIT, timeout)
    return str(caught.value)


async def test_a_client_is_known_while_it_is_connected(
    joining: Joining, manager: SimpleClientManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stream = await joining.join()
    cid = only(manager).cid
    assert len(bytes.fromhex(cid)) == 16
    stream.leave()
    # Between instructions nothing is read: the transport's cancellation is how this is noticed.
    await failing(only(manager), ClientLeft)
    await stream.ended.wait()
    assert manager.num_available() == 0
    assert f"Client {cid} joined from test:1: 1 connected" in caplog.text
    assert f"Client {cid} left: 0 connected" in caplog.text


async def test_instructions_and_answers_take_turns(
    joining: Joining, manager: SimpleClientManager
) -> None:
    stream = await joining.join()
    answers = []

    async def ask(step: float) -> None:
        answers.append(await only(manager).ask(Kind.FIT, FIT, None))

    async with trio.open_nursery() as nursery:
        for step in range(3):
            nursery.start_soon(ask, step)
        for step in range(3):
            message = await stream.hear()
            assert message.fit_ins.config["lr"].double_value == 0.1
            await wait_all_tasks_blocked()
            with pytest.raises(trio.WouldBlock):
                stream._to_client[1].receive_nowait()
            await stream.say(fit_res(np.full(3, step)))
    assert len(answers) == 3


async def test_a_timeout_ends_the_connection(
    joining: Joining, manager: SimpleClientManager, mock_clock: MockClock
) -> None:
    stream = await joining.join()
    async with trio.open_nursery() as nursery:
        texts = []

        async def ask() -> None:
            texts.append(await failing(only(manager), ClientTimedOut, 30))

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        mock_clock.jump(29)
        await wait_all_tasks_blocked()
        assert not stream.ended.is_set()
        mock_clock.jump(2)
        await stream.ended.wait()
    assert texts == ["no answer within 30 s"]
    assert stream.refusal is not None
    assert stream.refusal.status is Status.DEADLINE_EXCEEDED
    assert manager.num_available() == 0


async def test_a_client_that_does_not_read_times_out_too(
    joining: Joining, manager: SimpleClientManager, mock_clock: MockClock
) -> None:
    stream = await joining.join()
    # Its side of the connection is full.
    for _ in range(10):
        await stream.send(b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failing, only(manager), ClientTimedOut, 30)
        await wait_all_tasks_blocked()
        mock_clock.jump(31)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xff\xff\xff", "no end"),
        (b"", "empty"),
        (pb.ClientMessage(evaluate_res=pb.EvaluateRes()), "evaluate_res"),
        (pb.ClientMessage(disconnect_res=pb.DisconnectRes()), "disconnect_res"),
        (b"\x22\x02\x08\x01\x22\x04\x08", "cut off"),
    ],
)
async def test_what_is_no_answer_ends_the_connection(
    joining: Joining, manager: SimpleClientManager, answer: Any, reason: str
) -> None:
    async def behave(stream: Stream, message: Any) -> None:
        await stream.say(answer)

    stream = await joining.join_as(behave)
    assert reason in await failing(only(manager), BadAnswer)
    await stream.ended.wait()
    assert stream.refusal is not None
    assert stream.refusal.status is Status.INVALID_ARGUMENT
    assert reason in stream.refusal.message
    assert manager.num_available() == 0


async def test_a_client_that_leaves_instead_of_answering(
    joining: Joining, manager: SimpleClientManager
) -> None:
    async def behave(stream: Stream, message: Any) -> None:
        stream.leave()

    await joining.join_as(behave)
    assert "before it had answered" in await failing(only(manager), ClientLeft)


async def test_whoever_asks_a_client_that_has_left_is_told_so(
    joining: Joining, manager: SimpleClientManager
) -> None:
    stream = await joining.join()
    client = only(manager)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(failing, client, ClientLeft)
        await wait_all_tasks_blocked()
        stream.leave()
    await failing(client, ClientLeft)


async def test_a_question_that_is_given_up_does_not_mix_up_the_answers(
    joining: Joining, manager: SimpleClientManager
) -> None:
    stream = await joining.join()
    client = only(manager)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.ask, Kind.FIT, FIT, None)
            await stream.hear()
            scope.cancel()
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            result: Any = await client.ask(Kind.FIT, FIT, None)
            assert result.num_examples == 2

        nursery.start_soon(ask)
        await stream.say(fit_res(np.zeros(3), examples=1))
        await stream.hear()
        await stream.say(fit_res(np.zeros(3), examples=2))


async def test_an_instruction_that_is_too_long_is_not_sent(
    joining: Joining, manager: SimpleClientManager
) -> None:
    await joining.join()
    with pytest.raises(ClientFailed, match="grpc_max_message_length"):
        await only(manager).ask(Kind.FIT, bytes(LIMIT + 1), None)


async def test_reconnect_is_the_last_instruction(
    joining: Joining, manager: SimpleClientManager
) -> None:
    stream = await joining.join()
    client = only(manager)
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            answer: Any = await client.ask(Kind.RECONNECT, write_reconnect(5), None)
            assert answer.reason == "RECONNECT"

        nursery.start_soon(ask)
        assert (await stream.hear()).reconnect_ins.seconds == 5
        await stream.say(pb.ClientMessage(disconnect_res=pb.DisconnectRes(reason="RECONNECT")))
    await stream.ended.wait()
    assert stream.refusal is None


async def test_idle_clients_are_told_to_disconnect(
    joining: Joining, manager: SimpleClientManager
) -> None:
    streams = [await joining.join_as(adding(1)) for _ in range(100)]
    joining.api.holds.release()
    for stream in streams:
        await stream.ended.wait()
        assert stream.refusal is None
    assert manager.num_available() == 0


async def test_a_client_at_work_finds_the_end_of_the_stream(
    joining: Joining, manager: SimpleClientManager
) -> None:
    stream = await joining.join()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failing, only(manager), ClientLeft)
        assert (await stream.hear()).HasField("fit_ins")
        joining.api.holds.release()
        with pytest.raises(trio.EndOfChannel):
            await stream.hear()
    assert stream.refusal is None


async def test_a_client_that_does_not_say_goodbye_is_not_waited_for_long(
    joining: Joining, mock_clock: MockClock
) -> None:
    stream = await joining.join()
    joining.api.holds.release()
    await wait_all_tasks_blocked()
    mock_clock.jump(1)
    await stream.ended.wait()


async def test_who_comes_while_the_server_stops_is_sent_away(joining: Joining) -> None:
    joining.api.holds.release()
    stream = Stream()
    joining._nursery.start_soon(joining._serve, stream)
    assert (await stream.hear()).HasField("reconnect_ins")


async def test_a_manager_may_turn_clients_away(joining: Joining, manager: Any) -> None:
    manager.register = lambda client: False
    stream = await joining.join()
    assert stream.refusal is not None
    assert stream.refusal.status is Status.RESOURCE_EXHAUSTED


async def test_threads_ask_with_methods_that_block(
    joining: Joining, manager: SimpleClientManager
) -> None:
    async def behave(stream: Stream, message: pb.ServerMessage) -> None:
        if message.HasField("get_properties_ins"):
            properties = {"asked": message.get_properties_ins.config["key"]}
            res = pb.GetPropertiesRes(properties=properties)
            await stream.say(pb.ClientMessage(get_properties_res=res))
        else:
            await adding(1, examples=5)(stream, message)

    await joining.join_as(behave)
    client = only(manager)

    def ask() -> None:
        assert client.get_properties(GetPropertiesIns({"key": 3}), 10, None).properties == {
            "asked": 3
        }
        assert (
            client.get_parameters(GetParametersIns({}), timeout=10, group_id=1).parameters == MODEL
        )
        fitted = client.fit(FitIns(MODEL, {}), timeout=10, group_id=1)
        assert parameters_to_ndarrays(fitted.parameters)[0].tolist() == [1, 1, 1]
        assert fitted.num_examples == 5
        assert client.evaluate(EvaluateIns(fitted.parameters, {}), 10).loss == 1
        assert client.reconnect(ReconnectIns(None), 10).reason == "ACK"
        with pytest.raises(ClientLeft):
            client.fit(FitIns(MODEL, {}), 10)

    await trio.to_thread.run_sync(ask)


async def test_the_event_loop_itself_may_not_block_on_a_client(
    joining: Joining, manager: SimpleClientManager
) -> None:
    await joining.join_as(adding(1))
    with pytest.raises(RuntimeError, match="thread"):
        only(manager).fit(FitIns(MODEL, {}), 10)
