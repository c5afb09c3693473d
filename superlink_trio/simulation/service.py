"""Nodes that are simulated as a supervised service, in the place of the Fleet API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module

import attrs
import trio

from superlink_trio.config import Backend, CannotStart, ConfigError, SuperLinkConfig
from superlink_trio.simulation.backend import App, AppNotLoaded, BackendDied, OpenBackend
from superlink_trio.simulation.engine import Simulation, UnusableSettings
from superlink_trio.simulation.progress import Display, log_progress
from superlink_trio.simulation.tasks import TaskSource
from superlink_trio.state import State
from superlink_trio.state.room import room_in_memory

# Where the backends are: a module, and what opens one.
_BACKENDS: Mapping[Backend, tuple[str, str]] = {
    "process": ("process.backend", "open_process_backend"),
    "ray": ("ray.backend", "open_ray_backend"),
}


@attrs.frozen
class SimulationService:
    """Simulates the nodes that a checked config asks for."""

    config: SuperLinkConfig
    _simulation: Simulation

    @classmethod
    def of(
        cls, config: SuperLinkConfig, state: State, display: Display | None
    ) -> SimulationService:
        """Make the service; `display` shows how it gets on, by default the log does."""
        assert config.client_app is not None, "it was checked"
        assert config.num_supernodes is not None, "it was checked"
        app = App(reference=config.client_app, directory=config.app_dir.absolute())
        simulation = Simulation(
            TaskSource(state, app_directory=app.directory, message_limit=config.max_message_size),
            partial(_open_backend(config.backend), app, config.backend_config),
            num_nodes=config.num_supernodes,
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


def _open_backend(backend: Backend) -> OpenBackend:
    # Neither is needed by the other, and Ray is an extra.
    module, name = _BACKENDS[backend]
    opens: OpenBackend = getattr(import_module(f"superlink_trio.simulation.{module}"), name)
    return opens


def _cannot_load(app: str, traceback: str) -> CannotStart:
    before, _, why = traceback.rpartition("\n")
    cause = why if why.startswith(app) else f"{app}: {why}"
    return CannotStart(f"the app cannot be loaded: {cause}", traceback if before else "")
