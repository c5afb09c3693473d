from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from builders import task_ins

from superlink_trio.clientapp import RecordSet, decode, encode
from superlink_trio.simulation import worker
from superlink_trio.simulation.backend import App, AppNotLoaded, Job, Node, Outcome
from superlink_trio.wire.tasks import TaskError

_NODE = Node(node_id=7, partition_id=2, num_partitions=5)


@pytest.fixture(autouse=True)
def _import_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An app's folder and modules are gone again after the test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    worker.load.cache_clear()
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _app(folder: Path, source: str, reference: str = "client:app") -> App:
    (folder / "client.py").write_text(
        "from superlink_trio.clientapp import Error, RecordSet\n" + source
    )
    return App(reference=reference, directory=folder)


def _job(records: RecordSet | TaskError | bytes | None = None, **changes: Any) -> Job:
    content = encode(records) if isinstance(records, RecordSet) else records
    task = task_ins(1, 7, now=time.time(), content=b"" if content is None else content)
    return attrs.evolve(Job(task=task, node=_NODE), **changes)


def _content(outcome: Outcome) -> RecordSet:
    assert isinstance(outcome.content, bytes), outcome.content
    return decode(outcome.content)


def test_an_app_gets_the_message_and_its_answer_is_the_outcome(tmp_path: Path) -> None:
    app = _app(
        tmp_path,
        """
def app(message, context):
    facts = [message.run_id, message.dst_node_id, context.node_id]
    facts += [context.node_config["partition-id"], context.node_config["num-partitions"]]
    weights = message.content.parameters["model"]["weights"] + 1
    texts = [message.message_id, message.message_type, message.group_id, context.run_config["lr"]]
    return message.reply(
        RecordSet({"model": {"weights": weights}}, {"m": {"facts": facts}}, {"c": {"texts": texts}})
    )
""",
    )
    job = _job(RecordSet({"model": {"weights": np.zeros(3)}}), run_config={"lr": "0.1"})
    answer = _content(worker.run(app, job))
    np.testing.assert_array_equal(answer.parameters["model"]["weights"], np.ones(3))
    assert answer.metrics["m"]["facts"] == [1, 7, 7, 2, 5]
    assert answer.configs["c"]["texts"] == [job.task.task_id, "train", job.task.group_id, "0.1"]


def test_the_ttl_of_an_answer_is_what_is_left(tmp_path: Path) -> None:
    app = _app(tmp_path, "def app(message, context): return message.reply(RecordSet())")
    task = attrs.evolve(_job().task, created_at=time.time() - 100, ttl=160.0)
    assert worker.run(app, _job(task=task)).ttl == pytest.approx(60, abs=5)
    failing = App(reference="client:nothing", directory=tmp_path)
    assert worker.run(failing, _job(task=task)).ttl == pytest.approx(60, abs=5)


def test_an_app_may_choose_the_ttl(tmp_path: Path) -> None:
    app = _app(tmp_path, "def app(message, context): return message.reply(RecordSet(), ttl=5.0)")
    assert worker.run(app, _job()).ttl == 5.0


_COUNTING = """
def app(message, context):
    seen = context.state.metrics.setdefault("seen", {"times": 0})
    seen["times"] += 1
    if message.message_type == "evaluate":
        raise ZeroDivisionError("division by zero")
    return message.reply(RecordSet())
"""


def test_state_is_kept_from_task_to_task(tmp_path: Path) -> None:
    app = _app(tmp_path, _COUNTING)
    outcome = worker.run(app, _job())
    outcome = worker.run(app, _job(state=outcome.state))
    assert decode(outcome.state).metrics == {"seen": {"times": 2}}


def test_an_app_that_raises_keeps_the_state_and_is_named(tmp_path: Path) -> None:
    app = _app(tmp_path, _COUNTING)
    state = worker.run(app, _job()).state
    job = _job(state=state)
    outcome = worker.run(app, attrs.evolve(job, task=attrs.evolve(job.task, task_type="evaluate")))
    assert outcome.content == TaskError(2, "<class 'ZeroDivisionError'>:<'division by zero'>")
    assert outcome.state == state
    assert outcome.report.startswith("Traceback")
    assert outcome.report.endswith("ZeroDivisionError: division by zero")
    assert outcome.fault == "ZeroDivisionError in client.py:7"


def test_a_failure_is_known_by_what_was_raised_and_where(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import json\nkeyed = {}\ndef gone(): keyed['gone']\n")
    source = "import json, package\ndef app(message, context):\n    "

    # A library may lie below a folder that is on the import path itself, as in a `.venv`.
    library = tmp_path / "lib"
    library.mkdir()
    (library / "deep.py").write_text("def fail(): raise OSError\n")
    sys.path.append(str(library))

    def fault(body: str, job: Job) -> str:
        sys.modules.pop("client", None)
        worker.load.cache_clear()
        return worker.run(_app(tmp_path, source + body), job).fault

    assert fault("package.gone()", _job()) == "KeyError in package/__init__.py:3"
    assert fault("json.loads('{')", _job()).startswith("JSONDecodeError in json/decoder.py:")
    assert fault("import deep; deep.fail()", _job()) == "OSError in deep.py:1"
    assert fault("raise SystemExit(3)", _job()) == "SystemExit in client.py:4"
    assert fault("pass", _job(b"\xff")).startswith("ValueError in superlink_trio/")


def test_a_failure_to_load_is_known_by_what_was_raised_in_the_app(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("\n1 / 0\n")
    outcome = worker.run(_app(tmp_path, "import helper"), _job())
    assert outcome.fault == "ZeroDivisionError in helper.py:2"
    assert worker.run(_app(tmp_path, "app = 3"), _job()).fault.startswith("AppNotLoaded in ")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return 3", "<class 'TypeError'>:<'the app gave a int, not a Message'>"),
        (
            "return message.reply(RecordSet(metrics={'m': {'ok': True}}))",
            "metrics['m']['ok'] is a bool",
        ),
        ("context.state.metrics['m'] = 3\n    return message.reply(RecordSet())", "not a dict"),
        ("raise SystemExit('enough')", "<class 'SystemExit'>:<'enough'>"),
    ],
)
def test_what_an_app_does_wrong_is_its_failure(tmp_path: Path, body: str, reason: str) -> None:
    outcome = worker.run(_app(tmp_path, f"def app(message, context):\n    {body}"), _job())
    assert isinstance(outcome.content, TaskError)
    assert outcome.content.code == 2
    assert reason in outcome.content.reason


def test_an_app_may_answer_with_an_error(tmp_path: Path) -> None:
    app = _app(tmp_path, "def app(m, c): return m.reply(Error(12, f'no {m.error.reason}'))")
    outcome = worker.run(app, _job(TaskError(9, "data")))
    assert outcome.content == TaskError(12, "no data")


def test_content_that_cannot_be_read_is_nobodys_failure(tmp_path: Path) -> None:
    app = _app(tmp_path, "def app(message, context): raise AssertionError")
    outcome = worker.run(app, _job(b"\xff"))
    assert isinstance(outcome.content, TaskError)
    assert outcome.content.code == 0
    assert "no RecordSet" in outcome.content.reason


@pytest.mark.parametrize(
    ("source", "reference", "told"),
    [
        ("", "client", "'client' is not of the form module:attribute"),
        ("", "client:app", "client:app: module 'client' has no attribute 'app'"),
        ("class A: pass", "client:A.app", "client:A.app: type object 'A' has no attribute 'app'"),
        ("", "nowhere:app", "nowhere:app: No module named 'nowhere'"),
        ("", "nowhere.at.all:app", "nowhere.at.all:app: No module named 'nowhere'"),
        ("def __getattr__(name): import gone", "client:app", "No module named 'gone'"),
        ("app = 3", "client:app", "client:app is a int"),
        ("raise SystemExit('no')", "client:app", "SystemExit: no"),
        (
            "import missing_library",
            "client:app",
            "No module named 'missing_library' (unless it is the app's own, install what it "
            f"belongs to: {Path(sys.executable).with_name('pip')} install",
        ),
    ],
)
def test_why_an_app_cannot_be_loaded(
    tmp_path: Path, source: str, reference: str, told: str
) -> None:
    app = _app(tmp_path, source, reference)
    with pytest.raises(AppNotLoaded) as caught:
        worker.load(app)
    assert told in str(caught.value)
    outcome = worker.run(app, _job())
    assert isinstance(outcome.content, TaskError)
    assert outcome.content.code == 1
    assert told in outcome.content.reason


def test_where_flower_is_missing_it_says_which_pip_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setitem(sys.modules, "flwr", None)  # even if it is installed here
    app = _app(tmp_path, "from flwr.client import ClientApp")
    command = f"{tmp_path / 'python'} -m pip install 'flwr>=1.8,<1.12'"
    with pytest.raises(AppNotLoaded, match=re.escape(command)):
        worker.load(app)
    (tmp_path / "pip").touch()
    command = f": {tmp_path / 'pip'} install 'flwr>=1.8,<1.12'"
    with pytest.raises(AppNotLoaded, match=re.escape(command)):
        worker.load(app)


def test_the_app_of_a_run_of_today_needs_todays_flower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flwr", None)  # even if it is installed here
    app = attrs.evolve(_app(tmp_path, "from flwr.clientapp import ClientApp"), objects=True)
    with pytest.raises(AppNotLoaded, match=re.escape("'flwr>=1.39'")):
        worker.load(app)


def test_the_app_of_a_run_of_today_is_a_client_app(tmp_path: Path) -> None:
    app = attrs.evolve(_app(tmp_path, "def app(message, context): ..."), objects=True)
    with pytest.raises(AppNotLoaded, match="is a function, and has to be a ClientApp"):
        worker.load(app)


def test_a_module_that_is_missing_in_what_is_there_is_not_to_be_installed(tmp_path: Path) -> None:
    with pytest.raises(AppNotLoaded) as caught:
        worker.load(_app(tmp_path, "import superlink_trio.nothing"))
    assert str(caught.value).endswith("No module named 'superlink_trio.nothing'")


def test_the_traceback_of_an_app_that_cannot_be_imported_begins_in_the_app(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def work():\n    return 1 / 0\n\nwork()\n")
    app = _app(tmp_path, "import helper")
    with pytest.raises(AppNotLoaded) as caught:
        worker.load(app)
    lines = str(caught.value).splitlines()
    files = [line.split('"')[1] for line in lines if line.startswith("  File")]
    assert files == [str(tmp_path / name) for name in ("client.py", "helper.py", "helper.py")]
    assert lines[-1] == "ZeroDivisionError: division by zero"


def test_an_app_is_imported_once_and_a_failure_is_tried_again(tmp_path: Path) -> None:
    app = _app(tmp_path, "raise OSError('not yet')")
    with pytest.raises(AppNotLoaded, match="not yet"):
        worker.load(app)
    _app(tmp_path, "def app(message, context):\n    return message.reply(RecordSet())\n")
    assert worker.load(app) is worker.load(app)


def test_the_apps_folder_comes_first_on_the_import_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text('NAME = "of the app"')
    source = "import colorsys\ndef app(m, c): return m.reply(Error(0, colorsys.NAME))"
    assert worker.run(_app(tmp_path, source), _job()).content == TaskError(0, "of the app")


def test_a_worker_needs_neither_trio_nor_numpy() -> None:
    program = (
        "import sys, superlink_trio.simulation.worker\n"
        "print({'trio', 'numpy', 'grpc', 'flwr', 'ray'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout.strip() == "set()", ran.stderr
