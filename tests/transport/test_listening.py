from __future__ import annotations

import pytest

from superlink_trio.config.address import Address
from superlink_trio.transport.listening import AddressError, look_up


@pytest.mark.parametrize("name", ["localhost", "LocalHost"])
async def test_localhost_is_both_loopback_addresses_whatever_the_machine_says(name: str) -> None:
    found = await look_up(Address(name, 9091))
    assert [where[:2] for *_, where in found] == [("127.0.0.1", 9091), ("::1", 9091)]


async def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(AddressError, match=r"cannot listen on host\.invalid:1: .*'host\.invalid'"):
        await look_up(Address("host.invalid", 1))
