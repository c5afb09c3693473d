from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared and noisy: how long an example takes says nothing about the code.
settings.register_profile(
    "shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared machine")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ray") and find_spec("ray") is None:
        pytest.skip("Ray is not installed (extra vce)")
