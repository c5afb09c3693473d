"""What a worker process does with a job: load the app, call it, make an outcome of its reply.

Apps are imported here, in worker processes, and never in the SuperLink. Nothing here
knows of backends, and nothing but attrs and protobuf is needed until an app asks for more.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import attrs

from superlink_trio.simulation import flower, plain, today
from superlink_trio.simulation.backend import App, AppNotLoaded, Job, Outcome
from superlink_trio.wire.splice import Buffer
from superlink_trio.wire.tasks import TaskError

Content: TypeAlias = bytes | TaskError
RunApp: TypeAlias = Callable[[Job, Buffer | TaskError, Buffer], Outcome]
"""Runs a loaded app: the job, and its content and state, which may lie elsewhere than in it."""

_UNKNOWN, _NOT_LOADED, _RAISED = 0, 1, 2

# An app may end its worker no more than it may end the SuperLink. KeyboardInterrupt is left alone:
# it is how some backends end a worker.
_ANYTHING_AN_APP_RAISES = (Exception, SystemExit)

_log = logging.getLogger(__name__)


class Adapter(Protocol):
    """What differs between the kinds of apps: the types they are called with."""

    def message(self, job: Job, content: Buffer | TaskError) -> Any:
        """Make the message that the app gets."""

    def context(self, job: Job, state: Buffer) -> Any:
        """Make the context that the app gets."""

    def reply(self, reply: Any) -> tuple[Content, float]:
        """Give what the app replied and its ttl in seconds."""

    def state(self, context: Any) -> bytes:
        """Serialise what the app left in the context."""


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """How a worker process behaves.

    `muted`: what it prints and logs goes nowhere. `silent`: it logs from WARNING upwards only.
    `tensorflow`: TensorFlow, where it is installed, takes memory of a GPU as it needs it instead
    of all at once.
    """

    muted: bool = False
    silent: bool = False
    tensorflow: bool = False

    @classmethod
    def read(cls, config: Mapping[str, object]) -> WorkerSettings:
        """Read what `--backend-config` says of workers, whatever the backend."""
        return cls(
            muted=bool(config.get("mute_logging")),
            silent=bool(config.get("silent")),
            tensorflow=bool(config.get("tensorflow")),
        )


def start(app: App, settings: WorkerSettings) -> None:
    """Get a worker process ready for an app, once. Raises AppNotLoaded."""
    _apply(settings)
    load(app)


def _apply(settings: WorkerSettings) -> None:
    if settings.muted:
        # The descriptors, not sys.stdout: libraries in C print as well.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
    if settings.silent:
        logging.disable(logging.INFO)
    if settings.tensorflow:
        _let_gpu_memory_grow()


def _let_gpu_memory_grow() -> None:
    # Source: https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth
    try:
        config = importlib.import_module("tensorflow").config
    except ModuleNotFoundError:
        _log.warning("TensorFlow is not installed: there is no GPU memory to let grow")
        return
    for gpu in config.list_physical_devices("GPU"):
        config.experimental.set_memory_growth(gpu, True)


def run(app: App, job: Job, content: Buffer | None = None, state: Buffer | None = None) -> Outcome:
    """Run the app for one job. Whatever goes wrong is the outcome, nothing is raised.

    `content` and `state` take the place of the job's own, where they lie elsewhere than in it. They
    are read, never kept or changed.
    """
    state = job.state if state is None else state
    try:
        run_app = load(app)
    except AppNotLoaded as error:
        reason = f"An exception was raised when attempting to load the app: {error}"
        return _failure(
            job, state, TaskError(_NOT_LOADED, reason), error.__cause__ or error, str(error)
        )
    return run_app(job, job.content if content is None else content, state)


@functools.cache
def load(app: App) -> RunApp:
    """Load the app, once a process.

    Its directory goes first on the import path, to stay there: an app may import more of its
    modules at any time. The working directory is left as it is.

    Raises AppNotLoaded; what failed is tried again the next time.
    """
    loaded = _import(app)
    return functools.partial(_run, loaded, _adapter_for(app, loaded))


def _adapter_for(app: App, loaded: object) -> Adapter:
    kind = type(loaded).__name__
    if app.objects:
        if not flower.is_client_app(loaded):
            raise AppNotLoaded(f"{app.reference} is a {kind}, and has to be a ClientApp of flwr")
        return today
    if not callable(loaded):
        raise AppNotLoaded(
            f"{app.reference} is a {kind}; an app is a ClientApp of flwr or a callable that takes "
            "a message and a context"
        )
    return flower if flower.is_client_app(loaded) else plain


def _import(app: App) -> Any:
    module_name, _, path = app.reference.partition(":")
    if not module_name or not path:
        raise AppNotLoaded(f"{app.reference!r} is not of the form module:attribute")
    directory = str(app.directory.absolute())
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    try:
        found: Any = importlib.import_module(module_name)
        for name in path.split("."):
            found = getattr(found, name)
    except _ANYTHING_AN_APP_RAISES as error:
        if _frames(error):
            raise AppNotLoaded(_traceback(error) + _remedy(app, error)) from error
        # It was not the app that failed: there is none of this name.
        raise AppNotLoaded(f"{app.reference}: {error} (the app's folder is {directory})") from error
    return found


def _run(
    app: Callable[[Any, Any], Any],
    adapter: Adapter,
    job: Job,
    content: Buffer | TaskError,
    state: Buffer,
) -> Outcome:
    try:
        message = adapter.message(job, content)
        context = adapter.context(job, state)
    except Exception as error:
        content = TaskError(_UNKNOWN, _reason(error))
        return _failure(job, state, content, error, traceback.format_exc().rstrip())
    try:
        answer, ttl = adapter.reply(app(message, context))
        return Outcome(content=answer, ttl=ttl, state=adapter.state(context))
    except _ANYTHING_AN_APP_RAISES as error:
        return _failure(job, state, TaskError(_RAISED, _reason(error)), error, _traceback(error))


def _failure(
    job: Job, state: Buffer, content: TaskError, error: BaseException, report: str
) -> Outcome:
    task = job.task
    # As Flower's clients count it: what is left of the task's own.
    ttl = task.ttl - (time.time() - task.created_at)
    return Outcome(content=content, ttl=ttl, state=bytes(state), report=report, fault=_fault(error))


def _fault(error: BaseException) -> str:
    """Give what was raised, and the innermost frame that it was raised in."""
    kind = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    return f"{kind} in {_as_imported(frames[-1].filename)}:{frames[-1].lineno}" if frames else kind


def _as_imported(file: str) -> str:
    roots = [root for root in sys.path if root and Path(file).is_relative_to(root)]
    return str(Path(file).relative_to(max(roots, key=len))) if roots else file


def _remedy(app: App, error: BaseException) -> str:
    """Give the remedy for a module that is missing as a whole."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return ""
    package = error.name.partition(".")[0]
    if package != error.name and importlib.util.find_spec(package) is not None:
        return ""
    pip = Path(sys.executable).with_name("pip")
    install = f"{pip if pip.exists() else f'{sys.executable} -m pip'} install"
    if package == "flwr":
        wanted = ">=1.39" if app.objects else ">=1.8,<1.12"
        return f" (the app runs beside superlink-trio: {install} 'flwr{wanted}')"
    return f" (unless it is the app's own, install what it belongs to: {install} …)"


def _reason(error: BaseException) -> str:
    # To the letter what Flower's clients report.
    return f"{type(error)}:<'{error}'>"


def _traceback(error: BaseException) -> str:
    report = traceback.TracebackException.from_exception(error)
    report.stack = traceback.StackSummary.from_list(_frames(error))
    return "".join(report.format()).rstrip()


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """Give the frames that are the app's, or of what it calls."""
    return [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename not in (__file__, importlib.__file__)
        and not frame.filename.startswith("<frozen importlib")
    ]
