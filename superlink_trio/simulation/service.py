"""Nodes that are simulated as a supervised service, of either generation of Flower."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib import import_module
from types import ModuleType

import attrs
import trio

from superlink_trio.config import CannotStart, ConfigError, SuperLinkConfig
from superlink_trio.simulation.backend import App, AppNotLoaded, Backend, BackendDied, OpenBackend
from superlink_trio.simulation.bundles import open_bundles
from superlink_trio.simulation.engine import Simulation, UnusableSettings
from superlink_trio.simulation.messages import MessageSource
from superlink_trio.simulation.progress import Display, log_progress
from superlink_trio.simulation.source import Source
from superlink_trio.simulation.tasks import TaskSource
from superlink_trio.state import State
from superlink_trio.state.messages import MessageState
from superlink_trio.state.room import room_in_memory


@attrs.frozen
class SimulationService:
    """Simulates the nodes that a checked config asks for."""

    config: SuperLinkConfig
    _simulation: Simulation

    @classmethod
    def of(
        cls, config: SuperLinkConfig, state: State, display: Display | None
    ) -> SimulationService:
        """Make nodes of Flower 1.8 to 1.11; `display` shows how it gets on, by default the log."""
        assert config.client_app is not None, "it was checked"
        app = App(reference=config.client_app, directory=config.app_dir.absolute())
        source = TaskSource(
            state, app_directory=app.directory, message_limit=config.max_message_size
        )
        return cls._over(config, source, lambda _: _open_app(config, app), display)

    @classmethod
    def of_today(
        cls, config: SuperLinkConfig, state: MessageState, display: Display | None
    ) -> SimulationService:
        """Make nodes of today's Flower, whose app comes with each run."""

        def open_backend(simulation: Simulation) -> AbstractAsyncContextManager[Backend]:
            return open_bundles(
                state, partial(_open_app, config), _most_at_once(config), simulation.forget
            )

        return cls._over(config, MessageSource(state), open_backend, display)

    @classmethod
    def _over(
        cls,
        config: SuperLinkConfig,
        source: Source,
        open_backend: Callable[[Simulation], AbstractAsyncContextManager[Backend]],
        display: Display | None,
    ) -> SimulationService:
        simulation = Simulation(
            source,
            lambda: open_backend(simulation),
            num_nodes=_nodes(config),
            backend_name=config.backend,
            # Half of what `--max-stored-size` is where it is not given, and the state in memory.
            context_limit=room_in_memory().size // 2,
            display=display or log_progress,
        )
        return cls(config, simulation)

    async def __call__(self, *, stopping: trio.Event, task_status: trio.TaskStatus[None]) -> None:
        """Simulate until `stopping`.

        Raises ConfigError for settings that the backend does not take, CannotStart for an app
        that cannot be loaded and a backend that ends before it was ready.
        """
        try:
            await self._simulation.serve(stopping=stopping, task_status=task_status)
        except UnusableSettings as error:
            raise ConfigError(str(error), "backend_config") from error
        except AppNotLoaded as error:
            raise _cannot_load(str(self.config.client_app), str(error).strip()) from None
        except BackendDied as error:
            if self._simulation.was_ready:
                raise
            raise CannotStart(f"the {self.config.backend} backend ended: {error}") from error


def _nodes(config: SuperLinkConfig) -> int:
    assert config.num_supernodes is not None, "it was checked"
    return config.num_supernodes


def _open_app(config: SuperLinkConfig, app: App) -> AbstractAsyncContextManager[Backend]:
    name = f"open_{config.backend}_backend"
    opens: OpenBackend = getattr(_module(config, "backend"), name)
    return opens(app, config.backend_config)


def _most_at_once(config: SuperLinkConfig) -> int:
    """Give how many tasks run at the same time at most. Raises ValueError for faulty settings."""
    most: int | None = _module(config, "settings").most_at_once(config.backend_config)
    return _nodes(config) if most is None else most


def _module(config: SuperLinkConfig, name: str) -> ModuleType:
    # No backend is needed by the other, and Ray is an extra.
    return import_module(f"superlink_trio.simulation.{config.backend}.{name}")


def _cannot_load(app: str, traceback: str) -> CannotStart:
    before, _, why = traceback.rpartition("\n")
    cause = why if why.startswith(app) else f"{app}: {why}"
    return CannotStart(f"the app cannot be loaded: {cause}", traceback if before else "")
