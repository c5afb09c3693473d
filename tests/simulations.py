"""The backends that have to keep the contract, and apps for them: a new one is tested like all."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import attrs
import trio
from builders import task_ins

from superlink_trio.clientapp import RecordSet, decode, encode
from superlink_trio.simulation.backend import App, Backend, Job, Node, OpenBackend, Outcome
from superlink_trio.simulation.process.backend import open_process_backend
from superlink_trio.simulation.process.settings import usable_cpus
from superlink_trio.simulation.ray.backend import open_ray_backend

BACKENDS: Mapping[str, OpenBackend] = {"process": open_process_backend, "ray": open_ray_backend}

TWO_WORKERS: Mapping[str, object] = {"client_resources": {"num_cpus": usable_cpus() / 2}}
"""Settings that make two workers on any machine."""

_APPS = '''
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from superlink_trio.clientapp import RecordSet


def chosen(message, context):
    """Be the app that the run's config names."""
    return globals()[context.run_config["app"]](message, context)


def echo(message, context):
    """Send everything back, and count in the state."""
    seen = context.state.metrics.setdefault("seen", {"times": 0})
    seen["times"] += 1
    return message.reply(message.content)


def pid(message, context):
    return message.reply(RecordSet(metrics={"process": {"pid": os.getpid()}}))


def remember(message, context):
    """Keep the content as the state, and answer with the state there was."""
    before = context.state
    context.state = message.content
    return message.reply(before)


def fail(message, context):
    if "fine" in message.content.configs:
        return message.reply(RecordSet())
    raise ZeroDivisionError("division by zero")


def leave(message, context):
    raise SystemExit(3)


def steps(message, context):
    """Do what the content says: tell the pid through one pipe, wait at another, die, say."""
    todo = message.content.configs["todo"]
    if "tell" in todo:
        Path(todo["tell"]).write_text(str(os.getpid()))
    if "wait" in todo:
        Path(todo["wait"]).read_text()
    if "die" in todo:
        os.kill(os.getpid(), signal.SIGKILL)
    if "say" in todo:
        print(todo["say"], flush=True)
        os.write(2, b"a cry from below\\n")
    return message.reply(RecordSet(metrics={"process": {"pid": os.getpid()}}))


def parent(message, context):
    """Start a process in a group of its own, tell both pids through a pipe, and never end."""
    sleep = "import time; time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", sleep], process_group=0)
    Path(message.content.configs["todo"]["tell"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


def load(message, context):
    """Have another process do the work, as loaders of data do."""
    with multiprocessing.get_context("fork").Pool(1) as pool:
        [pid] = pool.map(_pid, [None])
    return message.reply(RecordSet(metrics={"process": {"pid": pid}}))


def _pid(_):
    return os.getpid()
'''


def apps(folder: Path, name: str) -> App:
    """Give one of the apps above, from a module in this folder."""
    (folder / "simulated_apps.py").write_text(_APPS)
    return App(reference=f"simulated_apps:{name}", directory=folder)


def job(
    records: RecordSet | bytes | None = None, *, state: bytes = b"", node: int = 1, app: str = ""
) -> Job:
    """Make a job with this content. `app` is for `chosen`."""
    content = records if isinstance(records, bytes) else encode(records or RecordSet())
    return Job(
        task=attrs.evolve(task_ins(1, node), created_at=time.time(), content=content),
        node=Node(node_id=node, partition_id=node - 1, num_partitions=2),
        state=state,
        run_config={"app": app},
    )


def todo(**steps: str | Path) -> Job:
    """Make a job for the app `steps`, or for `parent`."""
    records = RecordSet(configs={"todo": {name: str(value) for name, value in steps.items()}})
    return job(records, app="steps")


class Elsewhere(Backend):
    """A backend that runs in a thread of its own, so that several tests can use it."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._token = trio.lowlevel.current_trio_token()

    @property
    def capacity(self) -> int:
        return self._backend.capacity

    async def run(self, job: Job) -> Outcome:
        return await trio.to_thread.run_sync(self.run_here, job)

    def run_here(self, job: Job) -> Outcome:
        """Run a job while this thread waits."""
        return trio.from_thread.run(self._backend.run, job, trio_token=self._token)


@contextmanager
def elsewhere(opening: Callable[[], AbstractAsyncContextManager[Backend]]) -> Iterator[Elsewhere]:
    """Open a backend in a thread of its own."""
    told: queue.Queue[Elsewhere | BaseException] = queue.Queue()
    leave = trio.Event()

    async def run() -> None:
        async with opening() as backend:
            told.put(Elsewhere(backend))
            await leave.wait()

    def main() -> None:
        try:
            trio.run(run)
        except BaseException as error:
            told.put(error)
            raise

    thread = threading.Thread(target=main)
    thread.start()
    opened = told.get()
    if isinstance(opened, BaseException):
        raise opened
    try:
        yield opened
    finally:
        opened._token.run_sync_soon(leave.set)
        thread.join()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what other processes do, which have no clock that a test could drive."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await trio.sleep(0.02)


def runs(pid: int) -> bool:
    """Say whether a process still runs. One that nobody has waited for does not."""
    try:
        _, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return rest.split()[0] not in "ZX"


def content(outcome: Outcome) -> RecordSet:
    """Read what an outcome carries, which must be no error."""
    assert isinstance(outcome.content, bytes), outcome.content
    return decode(outcome.content)


def pid_of(outcome: Outcome) -> int:
    """Read which process answered."""
    pid = content(outcome).metrics["process"]["pid"]
    assert isinstance(pid, int)
    return pid
