from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from builders import task_ins

import superlink_trio.clientapp
from superlink_trio.clientapp import Context, Message, RecordSet

_PAGE = (Path(__file__).parents[2] / "docs" / "clientapp.md").read_text(encoding="utf-8")


def test_the_example_runs() -> None:
    [example] = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "docs/clientapp.md", "exec"), names)
    task = task_ins(1, 7)
    message = Message(
        run_id=1,
        message_id=task.task_id,
        src_node_id=0,
        dst_node_id=7,
        group_id="1",
        message_type="train",
        created_at=time.time(),
        ttl=60.0,
        body=RecordSet({"weights": {"layer": np.zeros(3)}}),
    )
    context = Context(node_id=7, node_config={"partition-id": 4}, state=RecordSet(), run_config={})
    for rounds in (1, 2):
        reply = names["app"](message, context)
        np.testing.assert_array_equal(reply.content.parameters["weights"]["layer"], np.full(3, 5))
        assert reply.content.metrics["fit"] == {"num-examples": 8, "rounds": rounds}
    assert (reply.reply_to_message, reply.src_node_id, reply.dst_node_id) == (task.task_id, 7, 0)


def test_the_docstring_has_the_same_example() -> None:
    [example] = re.findall(r"```python\n(.*?)```", _PAGE, re.DOTALL)
    told = "\n".join(
        line.removeprefix("    ") for line in (superlink_trio.clientapp.__doc__ or "").splitlines()
    )
    assert re.sub(r"\n+", "\n", example) in re.sub(r"\n+", "\n", told)
