from __future__ import annotations

import attrs
import pytest

from superlink_trio.config import Limits, SuperLinkConfig
from superlink_trio.transport.grpc import GrpcOptions
from superlink_trio.transport.http import HttpOptions


@pytest.mark.parametrize("options", [GrpcOptions, HttpOptions])
def test_a_server_takes_its_limits_from_a_config(options: type[Limits]) -> None:
    config = SuperLinkConfig(grace=1, max_message_size=2**20, request_timeout=3, max_calls=4)
    taken = options.of(config, max_connections=5)
    assert type(taken) is options
    for field in attrs.fields(Limits):
        wanted = 5 if field.name == "max_connections" else getattr(config, field.name)
        assert getattr(taken, field.name) == wanted


@pytest.mark.parametrize("options", [GrpcOptions, HttpOptions])
def test_a_default_is_the_same_everywhere(options: type[Limits]) -> None:
    assert options.of(SuperLinkConfig()) == options()
