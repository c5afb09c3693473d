from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from joiners import Joining, open_joining

from superlink_trio.federation import SimpleClientManager


@pytest.fixture
def manager() -> SimpleClientManager:
    return SimpleClientManager()


@pytest.fixture
async def joining(manager: SimpleClientManager) -> AsyncIterator[Joining]:
    """Where clients join whom `manager` knows."""
    async with open_joining(manager) as joining:
        yield joining
