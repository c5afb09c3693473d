from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and noisy: how long an example takes says nothing about the code.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Whatever a test does to the log of this process, the next one finds it as it was."""
    package, root = logging.getLogger("superlink_trio"), logging.getLogger()
    levels, handlers, disabled = (
        (package.level, root.level),
        list(root.handlers),
        root.manager.disable,
    )
    yield
    package.setLevel(levels[0])
    root.setLevel(levels[1])
    root.handlers[:] = handlers
    logging.disable(disabled)
