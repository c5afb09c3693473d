from __future__ import annotations

from functools import partial

import pytest
import trio
from threaded_clients import Clients

from superlink_trio import FedAvg, serve_rounds
from superlink_trio.federation import Parameters, UnusableTensor


async def test_what_a_client_raises_ends_the_others_and_comes_out() -> None:
    # One of two has to train, on what is no model.
    strategy = FedAvg(
        fraction_fit=0.5, min_fit_clients=1, initial_parameters=Parameters([b"no array"])
    )
    serve = partial(serve_rounds, server_address="127.0.0.1:0", strategy=strategy)
    async with trio.open_nursery() as servers:
        federation = await servers.start(serve)
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 (a nursery)
            async with trio.open_nursery() as nursery:
                clients = Clients(nursery)
                for _ in range(2):
                    clients.start(federation.address)
                await trio.sleep_forever()
        federation.stop()
    [error] = caught.value.exceptions
    assert isinstance(error, UnusableTensor)
