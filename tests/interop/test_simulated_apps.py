"""Apps of real Flower releases, run as a simulation's worker runs them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import attr
import attrs
import numpy as np
import pytest
from builders import task_ins
from interop.peers import VERSIONS

from superlink_trio.clientapp import RecordSet, decode, encode
from superlink_trio.simulation.backend import Job, Node, Outcome
from superlink_trio.wire.project import config_in_bundle, config_in_directory
from superlink_trio.wire.tasks import TaskError

pytestmark = pytest.mark.interop

_CHECKOUT = Path(__file__).parents[2]
_WORK = Path(__file__).parent / "programs" / "work.py"

Work: TypeAlias = Callable[..., list[Outcome]]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def work(version: str, interpreters: Mapping[str, Path], tmp_path: Path) -> Work:
    """Runs jobs of one node, in the environment of a Flower release."""
    # All that this package needs there, and pure Python: lent from here.
    for package in (attr, attrs):
        (tmp_path / package.__name__).symlink_to(package.__path__[0])
    path = os.pathsep.join(map(str, (_CHECKOUT, tmp_path)))

    def run(app: str, *jobs: Job) -> list[Outcome]:
        ran = subprocess.run(
            [interpreters[version], _WORK, f"node_apps:{app}"],
            input=pickle.dumps(jobs),
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        outcomes: list[Outcome] = pickle.loads(ran.stdout)
        return outcomes

    return run


def _job(task_type: str, records: RecordSet | None = None) -> Job:
    task = task_ins(23, 7, task_type=task_type, ttl=1e9, content=encode(records or RecordSet()))
    node = Node(node_id=7, partition_id=2, num_partitions=5)
    return Job(task=task, node=node, run_config={"lr": 0.5})


_FIT_INS = RecordSet(
    {"fitins.parameters": {"0": np.zeros((2, 3)), "1": np.arange(3.0, dtype=np.float32)}},
    configs={"fitins.config": {"lr": 0.25}},
)
_EVALUATE_INS = RecordSet(
    {"evaluateins.parameters": {"0": np.zeros((2, 3))}}, configs={"evaluateins.config": {}}
)


def _content(outcome: Outcome) -> RecordSet:
    assert isinstance(outcome.content, bytes), outcome.content
    return decode(outcome.content)


def test_a_client_gets_its_partition_and_fits(work: Work) -> None:
    [outcome] = work("legacy", _job("train", _FIT_INS))
    answer = _content(outcome)
    weights = answer.parameters["fitres.parameters"]
    np.testing.assert_array_equal(weights["0"], np.full((2, 3), 3.0))
    np.testing.assert_array_equal(weights["1"], [3.0, 4.0, 5.0])
    assert answer.metrics["fitres.num_examples"] == {"num_examples": 8}
    assert answer.configs["fitres.metrics"] == {"lr": 0.25}


def test_state_is_kept_unless_the_app_raises(work: Work) -> None:
    fit, evaluate = _job("train", _FIT_INS), _job("evaluate", _EVALUATE_INS)
    outcomes = work("legacy", fit, evaluate, fit)
    assert outcomes[1].content == TaskError(2, "<class 'ZeroDivisionError'>:<'division by zero'>")
    counted = [decode(outcome.state).metrics["seen"]["times"] for outcome in outcomes]
    assert counted == [1, 1, 2]


def test_an_app_learns_all_about_its_message_and_its_node(work: Work, version: str) -> None:
    job = _job("query")
    [outcome] = work("modern", job)
    expected = {
        "run_id": 23,
        "message_id": job.task.task_id,
        "src_node_id": 0,
        "dst_node_id": 7,
        "reply_to_message": "",
        "group_id": job.task.group_id,
        "ttl": 1e9,
        "created_at": job.task.created_at,
        "partition_id": 2,
    }
    if version not in ("1.8.0", "1.9.0"):
        expected |= {"num_partitions": 5, "node_id": 7, "lr": 0.5}
    assert _content(outcome).configs == {"told": expected}


_PROJECT = """
[project]
name = "app"
version = "1.0.0"
[tool.flwr.app]
publisher = "us"
[tool.flwr.app.components]
serverapp = "app:server"
clientapp = "app:client"
[tool.flwr.app.config]
local-epochs = 3
lr = 0.5
verbose = true
name = "an app"
optimizer.momentum.nesterov = 0.9
"""


def test_the_config_of_a_bundle_is_read_as_a_node_reads_it(
    interpreters: Mapping[str, Path], tmp_path: Path
) -> None:
    project = tmp_path / "app"
    project.mkdir()
    (project / "pyproject.toml").write_text(_PROJECT)
    (project / "app.py").write_text("server = None\nclient = None\n")
    ran = subprocess.run(
        [interpreters["1.11.1"], _WORK.with_name("bundle.py"), project],
        stdout=subprocess.PIPE,
        check=True,
        cwd=tmp_path,
    )
    told = json.loads(ran.stdout.splitlines()[-1])
    assert told["config"]["optimizer.momentum.nesterov"] == 0.9
    bundle = (tmp_path / told["bundle"]).read_bytes()
    assert {**config_in_bundle(bundle), "lr": 0.1} == told["config"]
    assert {**config_in_directory(project), "lr": 0.1} == told["config"]


def test_records_of_ours_are_theirs_and_the_other_way_round(work: Work) -> None:
    records = RecordSet(
        {"model": {"weights": np.arange(6).reshape(2, 3), "bias": np.array(1.5)}, "empty": {}},
        {"fit": {"loss": 0.5, "n": 3, "history": [0.1, 0.2], "steps": [1, 2], "none": []}},
        {"c": {"b": True, "t": "text", "r": b"\x00", "bs": [True], "ts": ["a"], "rs": [b"\x01"]}},
    )
    [outcome] = work("modern", _job("train", records))
    answer = _content(outcome)
    assert (answer.metrics, answer.configs) == (records.metrics, records.configs)
    assert answer.parameters.keys() == records.parameters.keys()
    for name, array in records.parameters["model"].items():
        np.testing.assert_array_equal(answer.parameters["model"][name], array)


def test_an_app_may_answer_with_an_error(work: Work) -> None:
    [outcome] = work("modern", _job("evaluate"))
    assert outcome.content == TaskError(12, "no data")


def test_the_ttl_is_what_is_left(work: Work) -> None:
    job = _job("train")
    job = attrs.evolve(job, task=attrs.evolve(job.task, created_at=1.7e9, ttl=2e9))
    [outcome] = work("modern", job)
    assert 0 < outcome.ttl < 2e9 - 9e7


def test_an_error_from_the_driver_reaches_the_app(work: Work) -> None:
    job = _job("train")
    job = attrs.evolve(job, task=attrs.evolve(job.task, content=TaskError(9, "none")))
    [outcome] = work("modern", job)
    assert isinstance(outcome.content, TaskError)
    # The app asks for the content that is not there.
    assert outcome.content.code == 2
    assert "ValueError" in outcome.content.reason
