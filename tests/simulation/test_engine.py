"""The engine over real stores, with a backend that does what it is told."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from pathlib import Path

import pytest
import trio
from builders import is_error
from trio.testing import MockClock
from workshop import Lab, not_loaded

from superlink_trio.simulation.backend import AppNotLoaded, BackendDied
from superlink_trio.simulation.engine import UnusableSettings
from superlink_trio.simulation.progress import Progress
from superlink_trio.state import MemoryState, StateUnavailable
from superlink_trio.state.interface import FORGET
from superlink_trio.wire.runs import Fab, Run
from superlink_trio.wire.tasks import Task, TaskError

# Nodes


async def test_all_nodes_are_online_and_stay_so(lab: Lab, mock_clock: MockClock) -> None:
    async with lab.life():
        nodes = await lab.nodes()
        assert len(nodes) == 3
        for _ in range(10):
            mock_clock.jump(3600)
            await lab.settle()
        assert await lab.nodes() == nodes


async def test_every_partition_has_one_node(lab: Lab) -> None:
    async with lab.life():
        ids = [id for node in await lab.nodes() for id in await lab.push(node, b"x")]
        await lab.answers(ids)
    nodes = [job.node for job in lab.workshop.jobs]
    assert sorted(node.partition_id for node in nodes) == [0, 1, 2]
    assert {node.num_partitions for node in nodes} == {3}
    assert {job.task.consumer for job in lab.workshop.jobs} == {node.node_id for node in nodes}


async def test_a_stop_leaves_no_nodes_behind(lab: Lab) -> None:
    async with lab.life():
        assert len(await lab.nodes()) == 3
    assert await lab.nodes() == []


async def test_it_can_serve_again_after_a_stop(lab: Lab) -> None:
    async with lab.life():
        before = await lab.nodes()
    async with lab.life():
        after = await lab.nodes()
        assert len(after) == 3
        assert not set(before) & set(after)
        [answer] = await lab.answers(await lab.push(after[0], b"x"))
        assert answer.content == b""


# Tasks


async def test_a_task_is_answered_as_its_node_would(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        [task_id] = await lab.push(node, b"x", group_id="7", task_type="evaluate")
        [answer] = await lab.answers([task_id])
    assert (answer.producer, answer.ancestry, answer.ttl) == (node, (task_id,), 60.0)
    assert (answer.group_id, answer.run_id, answer.task_type) == ("7", lab.run_id, "evaluate")
    assert 0 <= lab.state.now() - answer.created_at < 10


async def test_the_app_gets_what_its_run_was_started_with(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        run_id = await lab.state.create_run(Run(override_config={"lr": 0.1}))
        await lab.answers(await lab.push(node, b"x", run_id=run_id))
    assert lab.workshop.jobs[0].run_config == {"lr": 0.1}


async def test_an_app_in_a_directory_gets_its_own_config_under_its_runs(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.flwr.app.config]\nlocal-epochs = 2\nlr = 0.5\nmodel.layers.sizes = 'small'\n"
    )
    async with lab.life():
        node, *_ = await lab.nodes()
        run_id = await lab.state.create_run(Run(override_config={"lr": 0.1}))
        await lab.answers(await lab.push(node, b"x", run_id=run_id))
    expected = {"local-epochs": 2, "lr": 0.1, "model.layers.sizes": "small"}
    assert lab.workshop.jobs[0].run_config == expected


def bundle(**files: str) -> Fab:
    """Make a bundle of text files; their names have a dot for an underscore."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("_", "."), text)
    content = packed.getvalue()
    return Fab(hash=hashlib.sha256(content).hexdigest(), content=content)


async def push_with_bundle(lab: Lab, fab: Fab, **config: str) -> list[Task]:
    node, *_ = await lab.nodes()
    run = Run(fab_hash=fab.hash, override_config=config)
    run_id = await lab.state.create_run(run, fab)
    return await lab.answers(await lab.push(node, b"x", run_id=run_id))


async def test_the_config_of_a_bundle_comes_before_the_directorys(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app.config]\nepochs = 2\n")
    fab = bundle(pyproject_toml="[tool.flwr.app.config]\nlr = 0.5\nname = 'a'\n")
    async with lab.life():
        await push_with_bundle(lab, fab, name="b")
    assert lab.workshop.jobs[0].run_config == {"lr": 0.5, "name": "b"}


async def test_a_bundle_whose_config_cannot_be_used_is_an_error_to_its_driver(lab: Lab) -> None:
    async with lab.life():
        [answer] = await push_with_bundle(lab, bundle(README_md="no project"))
    assert is_error(answer, 1)
    assert "pyproject.toml" in str(answer.content)
    assert lab.workshop.jobs == []


async def test_a_config_that_cannot_be_used_is_told_before_the_start(
    lab: Lab, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app.config]\nsizes = [1, 2]\n")
    with pytest.raises(AppNotLoaded, match="sizes is a list; it must be"):
        await lab.simulation.serve(stopping=trio.Event())


async def test_tasks_that_are_there_before_the_start_are_run(lab: Lab) -> None:
    lab.run_id = await lab.state.create_run(Run())
    async with lab.last_life():
        node, *_ = await lab.nodes()
        lab.workshop.opened[0].death.set()
    task_ids = await lab.push(node, b"x")
    async with lab.life():
        assert [answer.content for answer in await lab.answers(task_ids)] == [b""]


async def test_a_node_works_on_one_task_at_a_time_oldest_first(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        task_ids = await lab.push(node, b"hold", b"a", b"b")
        await lab.settle()
        assert lab.contents == [b"hold"]
        lab.workshop.go.set()
        await lab.answers(task_ids)
    assert lab.contents == [b"hold", b"a", b"b"]


async def test_a_task_that_comes_while_its_node_looks_for_more_is_not_missed(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        for _ in range(20):
            # Each push falls together with the node's look for another task.
            task_ids = await lab.push(node, b"x")
            with trio.fail_after(5):
                await lab.answers(task_ids)


async def test_as_many_nodes_work_at_once_as_there_are_workers(lab: Lab) -> None:
    async with lab.life():
        nodes = await lab.nodes()
        task_ids = [id for node in nodes for id in await lab.push(node, b"hold")]
        await lab.settle()
        assert len(lab.workshop.jobs) == 2
        lab.workshop.go.set()
        await lab.answers(task_ids)
    assert lab.workshop.most_running == 2


async def test_a_task_is_not_taken_before_a_worker_is_free(lab: Lab) -> None:
    async with lab.life():
        for node in await lab.nodes():
            await lab.push(node, b"hold")
        await lab.settle()
        waiting = {job.task.consumer for job in lab.workshop.jobs} ^ set(await lab.nodes())
        [node] = waiting
        task = await lab.state.take_task_ins(node, "")
        assert task is not None, "it is still queued"
        await lab.state.put_back_task_ins(task)
        lab.workshop.go.set()
        await lab.answers([task.task_id])


async def test_two_runs_take_turns(lab: Lab) -> None:
    lab.workshop.capacity = 1
    async with lab.life():
        a, b, _ = await lab.nodes()
        other = await lab.state.create_run(Run())
        first = await lab.push(a, *[b"x"] * 5)
        second = await lab.push(b, *[b"x"] * 5, run_id=other)
        await lab.answers([*first, *second])
    runs = [job.task.run_id for job in lab.workshop.jobs]
    assert all(
        {one, two} == {lab.run_id, other} for one, two in zip(runs[::2], runs[1::2], strict=True)
    )


async def test_an_error_that_the_driver_sent_reaches_the_app(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        error = TaskError(0, "driver says no")
        [answer] = await lab.answers(await lab.push(node, error))
    assert lab.contents == [error]
    assert answer.content == b"error"


# Contexts


async def test_a_context_belongs_to_a_node_and_a_run(lab: Lab) -> None:
    async with lab.life():
        a, b, _ = await lab.nodes()
        other = await lab.state.create_run(Run())
        contents = [
            (await lab.answers(await lab.push(node, content, run_id=run_id)))[0].content
            for node, run_id, content in [
                (a, lab.run_id, b"1"),
                (a, lab.run_id, b"2"),
                (b, lab.run_id, b"3"),
                (a, other, b"4"),
                (a, lab.run_id, b"5"),
            ]
        ]
    assert contents == [b"", b"1.", b"", b"", b"1.2."]


@pytest.mark.parametrize("failing", [b"fail", b"crash"])
async def test_a_context_changes_only_on_success(lab: Lab, failing: bytes) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        *_, last = await lab.answers(await lab.push(node, b"1", failing, b"2"))
    assert last.content == b"1."


@pytest.mark.parametrize("ttl", [0.0, 60.0])
async def test_a_context_changes_only_when_the_answer_was_stored(
    lab: Lab, mock_clock: MockClock, ttl: float
) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        # An answer without a time to live is not valid, one after its task's is too late.
        lab.workshop.ttl = ttl
        await lab.push(node, b"hold", ttl=10.0)
        await lab.settle()
        mock_clock.jump(20 if ttl else 1)
        lab.workshop.go.set()
        await lab.settle()
        lab.workshop.ttl = 60.0
        [answer] = await lab.answers(await lab.push(node, b"x"))
    assert answer.content == b""


async def contexts(lab: Lab, node: int, *pushed: tuple[int, bytes]) -> list[object]:
    """Push contents in runs, one after the other; give the Contexts that they found."""
    return [
        (await lab.answers(await lab.push(node, content, run_id=run_id)))[0].content
        for run_id, content in pushed
    ]


async def test_contexts_of_the_run_that_was_used_least_recently_give_way(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    lab.make(context_limit=10_000)
    a, b, c = b"a" * 3000, b"b" * 3000, b"c" * 3000
    async with lab.life():
        node, *_ = await lab.nodes()
        runs = [lab.run_id, *[await lab.state.create_run(Run()) for _ in range(2)]]
        await contexts(lab, node, (runs[0], a), (runs[1], b))
        # The first is used again; the third finds no room unless the second goes.
        await contexts(lab, node, (runs[0], b""), (runs[2], c))
        found = await contexts(lab, node, (runs[0], b""), (runs[2], b""), (runs[1], b""))
    assert found == [a + b"..", c + b".", b""]
    [line] = [line for line in caplog.messages if "no room for the Contexts" in line]
    assert str(runs[1]) in line


async def test_a_context_that_does_not_fit_is_an_error_to_the_driver(lab: Lab) -> None:
    lab.make(context_limit=10_000)
    async with lab.life():
        one, other, _ = await lab.nodes()
        first, second = [
            (await lab.answers(await lab.push(node, b"x" * 6000)))[0] for node in (one, other)
        ]
        assert first.content == b""
        assert is_error(second, 0)
        assert "Contexts" in str(second.content)
        again = [(await lab.answers(await lab.push(n, b"y")))[0].content for n in (one, other)]
    assert again == [b"x" * 6000 + b".", b""]


async def test_contexts_of_runs_that_were_silent_for_a_day_are_dropped(
    lab: Lab, mock_clock: MockClock
) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        await lab.answers(await lab.push(node, b"1"))
        mock_clock.jump(FORGET + 1)
        await lab.settle()
        other = await lab.state.create_run(Run())
        await lab.answers(await lab.push(node, b"2", run_id=other))
        [answer] = await lab.answers(await lab.push(node, b"3"))
    assert answer.content == b""


# What goes wrong


async def test_an_app_that_raises_is_an_error_answer(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        [answer] = await lab.answers(await lab.push(node, b"fail"))
    assert answer.content == TaskError(2, "ValueError:<'no'>")


async def test_a_dead_worker_costs_its_task_only(lab: Lab) -> None:
    async with lab.life():
        a, b, _ = await lab.nodes()
        [held] = await lab.push(b, b"hold")
        crashed, after = await lab.answers(await lab.push(a, b"crash", b"x"))
        lab.workshop.go.set()
        [other] = await lab.answers([held])
    assert is_error(crashed, 0)
    assert "signal 9" in str(crashed.content)
    assert after.content == other.content == b""


async def test_an_answer_too_large_for_a_driver_is_an_error(lab: Lab) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        _, answer = await lab.answers(await lab.push(node, b"x" * 20_000, b"y"))
    assert is_error(answer, 0)
    assert "too large" in str(answer.content)


@pytest.mark.parametrize("ttl", [0.0, -1.0, float("nan"), float("inf")])
async def test_an_answer_without_time_to_live_is_an_error(lab: Lab, ttl: float) -> None:
    lab.workshop.ttl = ttl
    async with lab.life():
        node, *_ = await lab.nodes()
        [answer] = await lab.answers(await lab.push(node, b"x"))
    assert is_error(answer, 0)
    assert "ttl" in str(answer.content)


async def test_an_answer_that_comes_too_late_is_dropped(lab: Lab, mock_clock: MockClock) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        await lab.push(node, b"hold", ttl=10.0)
        await lab.settle()
        mock_clock.jump(20)
        lab.workshop.go.set()
        [answer] = await lab.answers(await lab.push(node, b"x"))
    assert answer.content == b""
    assert lab.contents == [b"hold", b"x"], "the app has worked all the same"


async def test_what_the_state_cannot_do_now_is_done_later(
    mock_clock: MockClock, tmp_path: Path
) -> None:
    state = Moody()
    lab = Lab(state, tmp_path)
    lab.make()
    async with lab.life():
        node, *_ = await lab.nodes()
        task_ids = await lab.push(node, b"x", b"crash")
        state.available = False
        for _ in range(3):
            await lab.settle()
            mock_clock.jump(1.1)
        assert await lab.answered(task_ids) == []
        state.available = True
        await lab.settle()
        mock_clock.jump(1.1)
        await lab.settle()
        mock_clock.jump(1.1)
        one, two = await lab.answers(task_ids)
    assert one.content == b""
    assert is_error(two, 0)
    assert len(lab.workshop.jobs) == 2


class Moody(MemoryState):
    """A store whose disk is away at times."""

    def __init__(self) -> None:
        super().__init__()
        self.available = True

    def _check(self) -> None:
        if not self.available:
            raise StateUnavailable("away")

    async def take_task_ins(self, node_id: int, connection: str = "") -> Task | None:
        self._check()
        return await super().take_task_ins(node_id, connection)

    async def store_task_res(self, task: Task) -> str:
        self._check()
        return await super().store_task_res(task)

    async def store_error(self, task_id: str, error: TaskError, *, producer: int | None) -> bool:
        self._check()
        return await super().store_error(task_id, error, producer=producer)


async def test_a_failure_of_the_app_is_told_once_and_summed_up_at_the_stop(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        await lab.answers(await lab.push(node, *[b"fail"] * 50, b"x", group_id="7"))
    failed, summed_up = caplog.records
    assert failed.levelname == "ERROR"
    assert f"The app failed on node {node} (partition " in failed.getMessage()
    assert failed.getMessage().endswith(": ValueError:<'no'>")
    fields = vars(failed)
    assert (fields["node_id"], fields["run_id"], fields["round"]) == (node, lab.run_id, "7")
    assert fields["exception"] == "Traceback: here"
    assert summed_up.levelname == "WARNING"
    assert summed_up.getMessage() == (
        f"50 of 51 tasks of run {lab.run_id} failed: ValueError in client.py:14 (50 times)"
    )


async def test_whatever_keeps_a_task_from_its_result_is_told(
    lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    async with lab.life():
        node, *_ = await lab.nodes()
        await lab.answers(await lab.push(node, b"crash", b"crash", b"x" * 20_000, b"y"))
        await push_with_bundle(lab, bundle(README_md="no project"))
    told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert ["signal 9" in told[0], "too large" in told[1], "config cannot" in told[2]] == [True] * 3
    *_, one, other = caplog.messages
    assert "3 of 4 tasks" in one
    assert "the worker died (2 times); an answer that is not valid" in one
    assert other.endswith("the app's config cannot be used")


# Backends that die


async def test_what_was_under_way_in_a_dead_backend_is_run_again(lab: Lab) -> None:
    async with lab.last_life():
        nodes = await lab.nodes()
        task_ids = [id for node in nodes for id in await lab.push(node, b"1", b"hold")]
        await lab.settle()
        lab.workshop.opened[0].death.set()
    lab.workshop.go.set()
    async with lab.life():
        assert await lab.nodes() == nodes
        answers = await lab.answers(task_ids)
        assert [answer.content for answer in answers] == [b"", b"1."] * 3


async def test_no_task_sees_three_backends_die(lab: Lab) -> None:
    async with lab.last_life():
        node, *_ = await lab.nodes()
        bomb, after = await lab.push(node, b"bomb", b"x")
    async with lab.last_life():
        pass
    async with lab.life():
        answers = await lab.answers([bomb, after])
        assert is_error(answers[0], 0)
        assert "died twice" in str(answers[0].content)
        assert answers[1].content == b""
    assert lab.contents == [b"bomb", b"bomb", b"x"]


async def test_a_backend_may_say_so_to_whoever_asks_it_first(lab: Lab) -> None:
    async with lab.last_life():
        node, *_ = await lab.nodes()
        lab.workshop.opened[0].gone = True
        [task_id] = await lab.push(node, b"x")
    async with lab.life():
        [answer] = await lab.answers([task_id])
        assert answer.content == b""


@pytest.mark.parametrize("in_group", [False, True])
@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (not_loaded(), AppNotLoaded),
        (BackendDied("no memory"), BackendDied),
        (ValueError("num_cpus: -1 is less than 0"), UnusableSettings),
    ],
)
async def test_a_backend_that_does_not_open_says_why(
    lab: Lab, refusal: Exception, kind: type[Exception], in_group: bool
) -> None:
    lab.workshop.refusal, lab.workshop.in_group = refusal, in_group
    with pytest.raises(kind) as failure:
        await lab.simulation.serve(stopping=trio.Event())
    assert str(failure.value) == str(refusal)
    run_id = await lab.state.create_run(Run())
    assert list(await lab.state.online_nodes(run_id)) == []


# Stopping


async def test_apps_that_run_may_finish(lab: Lab) -> None:
    async with lab.life() as stopping:
        a, b, c = await lab.nodes()
        held = [*await lab.push(a, b"hold", b"next"), *await lab.push(b, b"hold")]
        await lab.settle()
        stopping.set()
        late = await lab.push(c, b"late")
        await lab.settle()
        assert len(await lab.nodes()) == 3
        lab.workshop.go.set()
    answers = await lab.answered([*held, *late])
    assert lab.contents == [b"hold", b"hold"]
    contents = {answer.ancestry[0]: answer.content for answer in answers}
    assert contents[held[0]] == contents[held[2]] == b""


async def test_what_does_not_finish_in_time_is_an_error_to_its_driver(lab: Lab) -> None:
    with trio.CancelScope() as scope:
        async with lab.life() as stopping:
            node, *_ = await lab.nodes()
            task_ids = await lab.push(node, b"hold")
            await lab.settle()
            stopping.set()
            await lab.settle()
            scope.cancel()
    assert await lab.nodes() == [], "they are deleted even then"
    [answer] = await lab.answered(task_ids)
    assert isinstance(answer.content, TaskError)
    assert answer.content.code == 3


async def test_a_crash_leaves_its_nodes_online_for_a_while(lab: Lab, mock_clock: MockClock) -> None:
    with trio.CancelScope() as scope:
        async with lab.life():
            nodes = await lab.nodes()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert await lab.nodes() == nodes
    mock_clock.jump(31)
    await lab.settle()
    assert await lab.nodes() == []


# What it tells


async def test_it_says_when_it_is_ready(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with lab.life():
        pass
    assert "Simulating 3 nodes: backend local, 2 tasks at a time" in caplog.messages


async def test_the_log_tells_what_was_done_every_few_seconds(
    lab: Lab, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with lab.life():
        node, *_ = await lab.nodes()
        await lab.answers(await lab.push(node, b"x", b"fail", b"x"))
        await lab.settle()
        assert told(caplog) == []
        for _ in range(5):
            mock_clock.jump(5)
            await lab.settle()
        [line] = told(caplog)
        assert "3 tasks done (0.6/s), 1 failed; 0 running, 0 nodes waiting" in line
        await lab.answers(await lab.push(node, b"x"))
    assert len(told(caplog)) == 2, "the last is told at the end"


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if message.startswith("Simulation: ")]


async def test_whoever_watches_sees_the_counts(lab: Lab) -> None:
    watched: list[Progress] = []

    async def watch(progress: Progress) -> None:
        watched.append(progress)

    lab.make(display=watch)
    async with lab.life():
        for node in await lab.nodes():
            await lab.push(node, b"hold")
        await lab.settle()
        [progress] = watched
        assert (progress.nodes, progress.capacity) == (3, 2)
        assert (progress.running, progress.waiting, progress.done) == (2, 1, 0)
        lab.workshop.go.set()
        await lab.answers(await lab.push(node, b"fail"))
        await lab.settle()
        assert (progress.running, progress.waiting) == (0, 0)
        assert (progress.done, progress.failed) == (4, 1)
