from __future__ import annotations

import datetime
from pathlib import Path

import pytest
import trio
from certificates import Authority

from superlink_trio.credentials import Credentials
from superlink_trio.credentials.certificates import Certificates


async def test_a_reload_that_fails_for_any_reason_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    stopped = trio.Event()

    def clock() -> datetime.datetime:
        if stopped.is_set():
            raise OverflowError("no time is left")
        return datetime.datetime.now(datetime.UTC)

    certificates = Certificates(authority.sources, clock)
    identity = certificates.identity
    stopped.set()
    credentials = Credentials(grpc=certificates, rest=None, nodes=None)
    await credentials.reload()
    [line] = caplog.messages
    assert "The certificates for gRPC stay as they were" in line
    assert certificates.identity is identity
