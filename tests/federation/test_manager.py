from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing

from superlink_trio.federation import (
    ClientProxy,
    Criterion,
    SimpleClientManager,
    Stopped,
)


class Client(ClientProxy):
    """A client that is only counted."""

    get_properties = get_parameters = fit = evaluate = reconnect = None  # type: ignore[assignment]


Client.__abstractmethods__ = frozenset()


def registered(manager: SimpleClientManager, *cids: str) -> list[Client]:
    clients = [Client(cid) for cid in cids]
    assert all(map(manager.register, clients))
    return clients


async def in_thread(function: Any, *arguments: Any) -> Any:
    return await trio.to_thread.run_sync(function, *arguments)


def test_clients_come_and_go(manager: SimpleClientManager) -> None:
    first, second = registered(manager, "a", "b")
    assert (manager.num_available(), len(manager)) == (2, 2)
    assert manager.all() == {"a": first, "b": second}
    manager.unregister(first)
    manager.unregister(first)
    assert manager.all() == {"b": second}


def test_a_cid_is_taken_once(manager: SimpleClientManager) -> None:
    [first] = registered(manager, "a")
    assert not manager.register(Client("a"))
    assert manager.all() == {"a": first}


def test_what_all_gave_stays_as_it_is(manager: SimpleClientManager) -> None:
    [client] = registered(manager, "a")
    everyone = manager.all()
    manager.unregister(client)
    assert everyone == {"a": client}


def test_a_sample_is_settled_by_the_seed(manager: SimpleClientManager) -> None:
    clients = registered(manager, *"abcdefgh")
    random.seed(7)
    sample = manager.sample(3)
    random.seed(7)
    assert sample == random.sample(clients, 3)


def test_a_criterion_is_asked(manager: SimpleClientManager) -> None:
    class Vowels(Criterion):
        def select(self, client: ClientProxy) -> bool:
            return client.cid in "ae"

    a, _, _, _, e = registered(manager, *"abcde")
    assert set(manager.sample(2, criterion=Vowels())) == {a, e}
    assert manager.sample(3, criterion=Vowels()) == []


def test_too_few_are_none(manager: SimpleClientManager, caplog: pytest.LogCaptureFixture) -> None:
    registered(manager, "a")
    assert manager.sample(2, min_num_clients=1) == []
    assert "Asked for 2 clients, and 1 can be chosen" in caplog.text


async def test_a_sample_waits_for_enough_clients(
    manager: SimpleClientManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            samples = []

            async def sample() -> None:
                samples.append(await in_thread(manager.sample, 1, 2))

            nursery.start_soon(sample)
            while "Waiting for clients: 0 of 2 connected" not in caplog.text:
                await trio.lowlevel.checkpoint()
            registered(manager, "a")
            registered(manager, "b")
    assert len(samples[0]) == 1


async def test_waiting_has_an_end(manager: SimpleClientManager) -> None:
    assert not await in_thread(manager.wait_for, 1, 0.001)
    registered(manager, "a")
    assert await in_thread(manager.wait_for, 1)


async def test_stopping_ends_every_wait_until_started_again(manager: SimpleClientManager) -> None:
    ended = []

    async def wait() -> None:
        with pytest.raises(Stopped):
            await in_thread(manager.wait_for, 1)
        ended.append(True)

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            manager.stop()
    assert len(ended) == 3
    registered(manager, "a")
    with pytest.raises(Stopped):
        manager.sample(1)
    manager.start()
    assert len(manager.sample(1)) == 1
