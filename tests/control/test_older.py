"""What `flwr` of 1.21 to 1.36 is answered otherwise."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from superlink_trio.control import control_api
from superlink_trio.control.older import for_older
from superlink_trio.fleet.signatures import check_key
from superlink_trio.rpc import Caller, Refused, Status
from superlink_trio.state.messages import MemoryMessages
from superlink_trio.wire import messages_pb2 as pb
from superlink_trio.wire.messages import FEDERATION


async def test_a_federation_is_shown_to_releases_that_say_which_they_are(
    mock_clock: MockClock,
) -> None:
    api = for_older(control_api(MemoryMessages(clock=lambda: 1_800_000_000.0), check_key))
    show = api.unary["ShowFederation"]
    answer = await show(b"", Caller("127.0.0.1:1", {"flwr-package-version": "1.36.0"}))
    assert pb.ShowFederationResponse.FromString(answer).federation.name == FEDERATION
    with pytest.raises(Refused, match="`flwr ls`") as caught:
        await show(b"", Caller("127.0.0.1:1"))
    assert caught.value.status is Status.FAILED_PRECONDITION
