from __future__ import annotations

import json
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import postgresql
import pytest
from browsing import MISSING
from exclusive import Turns
from hypothesis import HealthCheck, settings

from superlink_trio.logs.rendering import JsonLines

_TURNS = pytest.StashKey[Turns]()

# Machines are shared and noisy: how long an example takes says nothing about the code.
_quiet = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("shared machine", _quiet)
# For all passes of .ci/run but one: whether other versions do the same, and what is covered.
settings.register_profile("short", _quiet, max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "shared machine"))


# What a shell runs in the background ignores Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    # Passes that run side by side share the folder by its name in the environment, and so do the
    # workers of one pass.
    folder = os.environ.get("TESTS_TURNS")
    if folder is None:
        made = tempfile.TemporaryDirectory(prefix="superlink-tests-")
        config.add_cleanup(made.cleanup)
        folder = os.environ["TESTS_TURNS"] = made.name
        config.add_cleanup(partial(os.environ.__delitem__, "TESTS_TURNS"))
    config.stash[_TURNS] = Turns(Path(folder))
    if postgresql.FOLDER not in os.environ:
        config.add_cleanup(_place_for_postgres())


def _place_for_postgres() -> Callable[[], None]:
    """Give what is to be done in the end; the workers of this pass find the place meanwhile."""
    folder = tempfile.TemporaryDirectory(prefix="pg-")
    # PostgreSQL does not run as root.
    Path(folder.name).chmod(0o755)
    os.environ[postgresql.FOLDER] = folder.name

    def end() -> None:
        server = postgresql.Server(Path(folder.name) / "pg")
        if server.running:
            server.kill()
        folder.cleanup()
        del os.environ[postgresql.FOLDER]

    return end


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("ray") and find_spec("ray") is None:
        pytest.skip("Ray is not installed (extra vce)")
    if item.get_closest_marker("browser") and MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)} (extra browser, and Debian's chromium)")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Alone at last, when the other processes have little left that these would have to wait for;
    # long at first, so that no other process waits for its end.
    items.sort(key=lambda item: (_is_alone(item), item.get_closest_marker("long") is None))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    # Outside everything else: what a test waits here counts for no timeout.
    with item.config.stash[_TURNS].take(alone=_is_alone(item)):
        return (yield)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.fixture
def json_log(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Log everything as the JSON format has it; give the lines so far."""
    usual = caplog.handler.formatter
    caplog.set_level(logging.DEBUG, "superlink_trio")
    caplog.handler.setFormatter(JsonLines())
    yield lambda: [json.loads(line) for line in caplog.text.splitlines()]
    caplog.handler.setFormatter(usual)
