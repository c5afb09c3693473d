"""An app of Flower 1.42, run as a simulation's worker runs it."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import attr
import attrs
import pytest
from _peers import NoPython, interpreter
from builders import task_ins
from peering.today import NEWEST

from superlink_trio.simulation.backend import Job, Node, Outcome
from superlink_trio.wire.objects import make_object, object_id_of, pack, tree_of, unpack
from superlink_trio.wire.tasks import TaskError

pytestmark = pytest.mark.interop

_CHECKOUT = Path(__file__).parents[2]
_WORK = Path(__file__).parent / "programs" / "work.py"

Work: TypeAlias = Callable[..., list[Outcome]]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Runs jobs of one node, in the environment of Flower 1.42."""
    try:
        python = interpreter(NEWEST)
    except NoPython as error:
        pytest.skip(str(error))
    # All that this package needs there, and pure Python: lent from here.
    for package in (attr, attrs):
        (tmp_path / package.__name__).symlink_to(package.__path__[0])
    path = os.pathsep.join(map(str, (_CHECKOUT, tmp_path)))

    def run(*jobs: Job) -> list[Outcome]:
        ran = subprocess.run(
            [python, _WORK, "node_apps_today:app", "objects"],
            input=pickle.dumps(jobs),
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        outcomes: list[Outcome] = pickle.loads(ran.stdout)
        return outcomes

    return run


def records(**children: tuple[str, bytes]) -> bytes:
    """Make a RecordDict as Flower packs one: records without arrays."""
    made = {name: make_object(kind, body) for name, (kind, body) in children.items()}
    ids = {name: object_id_of(content) for name, content in made.items()}
    body = json.dumps(ids).encode()
    root = f"RecordDict {','.join(ids.values())} {len(body)}".encode() + b"\0" + body
    return pack({**{ids[name]: made[name] for name in made}, object_id_of(root): root})


def job(task_type: str, content: bytes | TaskError) -> Job:
    task = task_ins(23, 7, task_type=task_type, ttl=1e9, content=content, producer=1)
    node = Node(node_id=7, partition_id=2, num_partitions=5)
    return Job(task=task, node=node, run_config={"lr": 0.5})


def test_what_an_app_gets_and_gives(work: Work) -> None:
    empty = records()
    asked, train = job("query", empty), job("train", empty)
    told, once, failed, refused, unread = work(
        asked,
        train,
        job("evaluate", records(**{"raise": ("MetricRecord", b"")})),
        job("evaluate", empty),
        job("train", TaskError(9, "none")),
    )
    assert isinstance(told.content, bytes)
    *_, root = objects = unpack(told.content)
    assert tree_of(objects).object_id == root
    [record] = [one for one in objects.values() if one.startswith(b"ConfigRecord")]
    learned = json.loads(record[record.index(b"{") : record.rindex(b"}") + 1])
    task = asked.task
    assert learned == {
        "run_id": [23, 23],
        "message_id": task.task_id,
        "nodes": [1, 7, 7],
        "group_id": task.group_id,
        "ttl": 1e9,
        "created_at": task.created_at,
        "message_type": "query",
        "node_config": {"partition-id": 2, "num-partitions": 5},
        "run_config": {"lr": 0.5},
    }
    assert told.ttl > 0
    assert told.state == b"", "it has left nothing"

    assert once.content == empty
    assert once.state
    reason = "<class 'ZeroDivisionError'>:<'division by zero'>"
    assert failed.content == TaskError(2, reason)
    assert failed.state == once.state, "the app has failed"
    assert refused.content == TaskError(12, "no data")
    # The app asks for the content that is not there.
    assert isinstance(unread.content, TaskError)
    assert unread.content.code == 2


def test_what_is_no_content_is_an_error(work: Work) -> None:
    [outcome] = work(job("train", b"nonsense"))
    assert isinstance(outcome.content, TaskError)
    assert "end in the middle" in outcome.content.reason
