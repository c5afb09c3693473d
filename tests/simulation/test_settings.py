"""How many tasks run at the same time, as far as settings say before a backend is there."""

from __future__ import annotations

import os

import pytest

from superlink_trio.simulation.process import settings as process
from superlink_trio.simulation.process.settings import usable_cpus
from superlink_trio.simulation.ray import settings as ray


def test_processes_are_counted_by_what_one_takes() -> None:
    assert process.most_at_once({}) == usable_cpus()
    assert process.most_at_once({"client_resources": {"num_cpus": usable_cpus()}}) == 1


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({}, os.cpu_count()),
        ({"client_resources": {"num_cpus": 0.5}, "init_args": {"num_cpus": 3}}, 6),
        ({"client_resources": {"num_cpus": 4}, "ray": {"num_cpus": 2}}, 1),
        ({"client_resources": {"num_cpus": 0, "num_gpus": 1}}, None),
        ({"ray": {"address": "auto"}}, None),
    ],
)
def test_of_ray_only_processors_are_known_before_it_is_up(
    config: dict[str, object], most: int | None
) -> None:
    assert ray.most_at_once(config) == most


@pytest.mark.parametrize("backend", [process, ray])
def test_settings_of_no_use_are_told(backend: object) -> None:
    with pytest.raises(ValueError, match=r"sizes is nothing the .* backend knows"):
        backend.most_at_once({"sizes": 1})  # type: ignore[attr-defined]  # a module
