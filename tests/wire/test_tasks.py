from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from builders import EPOCH, answer_to, pb_node, pb_task_ins, pb_task_res, task_ins
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import Malformed
from superlink_trio.wire.tasks import (
    Draft,
    Task,
    TaskError,
    accept,
    error_answer,
    faults,
    read_push_task_ins,
    read_push_task_res,
    timestamp,
    write_pull_task_ins,
    write_pull_task_res,
)

ids = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=20)
seconds = st.floats(0, 1e12)
contents = st.binary(max_size=400) | st.builds(TaskError, st.integers(-5, 300), texts)
tasks = st.builds(
    Task,
    task_id=texts,
    group_id=texts,
    run_id=ids,
    producer=ids,
    consumer=ids,
    created_at=seconds,
    pushed_at=seconds,
    ttl=seconds,
    ancestry=st.lists(texts, max_size=3).map(tuple),
    task_type=texts,
    content=contents,
)


def read(raw: bytes) -> Draft:
    (draft,) = read_push_task_ins(raw)
    return draft


@given(st.lists(tasks, max_size=4), texts)
def test_what_is_written_is_what_protobuf_reads(written: list[Task], delivered_at: str) -> None:
    for raw, response in (
        (b"".join(write_pull_task_ins(written, delivered_at)), pb.PullTaskInsResponse()),
        (b"".join(write_pull_task_res(written, delivered_at)), pb.PullTaskResResponse()),
    ):
        response.MergeFromString(raw)
        items: Sequence[pb.TaskIns | pb.TaskRes] = (
            response.task_ins_list
            if isinstance(response, pb.PullTaskInsResponse)
            else response.task_res_list
        )
        assert len(items) == len(written)
        for task, item in zip(written, items, strict=True):
            assert (item.task_id, item.group_id, item.run_id) == (
                task.task_id,
                task.group_id,
                task.run_id,
            )
            assert item.task.delivered_at == delivered_at
            assert item.task.producer == pb_node(task.producer)
            assert item.task.consumer == pb_node(task.consumer)
            assert tuple(item.task.ancestry) == task.ancestry
            assert item.task.HasField("recordset") == isinstance(task.content, bytes)
            if isinstance(task.content, bytes):
                assert item.task.recordset == task.content
            else:
                assert TaskError(item.task.error.code, item.task.error.reason) == task.content


@given(tasks)
def test_size_is_an_upper_bound(task: Task) -> None:
    task = attrs.evolve(task, task_id="x" * 36)
    assert len(b"".join(write_pull_task_res([task], timestamp(EPOCH)))) <= task.size


@given(tasks)
def test_what_was_written_is_read_back(task: Task) -> None:
    # A push and the PullTaskRes answer have the same layout.
    (draft,) = read_push_task_res(b"".join(write_pull_task_res([task], "")))
    draft.message.task_id = ""
    read_back = attrs.evolve(accept(draft, pushed_at=task.pushed_at), task_id=task.task_id)
    assert read_back == task


@given(st.binary(max_size=200))
def test_junk_is_refused_or_read_never_worse(raw: bytes) -> None:
    try:
        drafts = read_push_task_ins(raw)
    except Malformed:
        return
    for draft in drafts:
        faults(draft)


def test_text_that_is_not_utf8_is_malformed() -> None:
    item = pb.TaskIns(group_id="ab").SerializeToString().replace(b"ab", b"\xff\xff")
    raw = bytes([1 << 3 | 2, len(item)]) + item
    with pytest.raises(Malformed):
        read_push_task_ins(raw)


def test_pieces_of_a_payload_are_merged_as_protobuf_does() -> None:
    pieces = b"".join(
        pb.TaskIns(task=pb.Task(recordset=piece)).SerializeToString() for piece in (b"ab", b"cd")
    )
    raw = bytes([1 << 3 | 2, len(pieces)]) + pieces
    assert read(raw).payload == b"abcd"


def test_an_empty_payload_is_a_payload() -> None:
    item = pb_task_ins(1, 2)
    item.task.recordset = b""
    request = pb.PushTaskInsRequest(task_ins_list=[item])
    draft = read(request.SerializeToString())
    assert draft.payload == b""
    assert faults(draft) == []


def _draft(message: pb.TaskIns | pb.TaskRes) -> Draft:
    if isinstance(message, pb.TaskIns):
        return read(pb.PushTaskInsRequest(task_ins_list=[message]).SerializeToString())
    raw = pb.PushTaskResRequest(task_res_list=[message]).SerializeToString()
    (draft,) = read_push_task_res(raw)
    return draft


def test_valid_tasks_have_no_faults() -> None:
    asked = pb_task_ins(1, 2)
    asked.task_id = "id"
    assert faults(_draft(pb_task_ins(1, 2))) == []
    assert faults(_draft(pb_task_ins(1, 0))) == []
    assert faults(_draft(pb_task_res(asked))) == []


BROKEN_IN_BOTH: list[tuple[str, dict[str, Any], str]] = [
    ("created_at", {"created_at": 1.0}, "created_at must"),
    ("created_at", {"created_at": math.nan}, "created_at must"),
    ("created_at", {"created_at": math.inf}, "created_at must"),
    ("ttl", {"ttl": 0.0}, "ttl must"),
    ("ttl", {"ttl": -1.0}, "ttl must"),
    ("ttl", {"ttl": math.nan}, "ttl must"),
    ("ttl", {"ttl": math.inf}, "ttl must"),
    ("delivered_at", {"delivered_at": "now"}, "delivered_at must be empty"),
    ("task_type", {"task_type": ""}, "task_type must not be empty"),
    ("recordset", {}, "exactly one of"),
    ("producer", {}, "producer must be set"),
    ("consumer", {}, "consumer must be set"),
    ("consumer", {"consumer": pb.Node(node_id=0)}, "consumer must be either"),
    ("consumer", {"consumer": pb.Node(node_id=5, anonymous=True)}, "consumer must be either"),
]


@pytest.mark.parametrize("kind", ["TaskIns", "TaskRes"])
@pytest.mark.parametrize(("field", "value", "fault"), BROKEN_IN_BOTH)
def test_each_fault_is_named(kind: str, field: str, value: dict[str, Any], fault: str) -> None:
    asked = pb_task_ins(1, 2)
    asked.task_id = "id"
    message = pb_task_ins(1, 2) if kind == "TaskIns" else pb_task_res(asked)
    message.task.ClearField(field)
    message.task.MergeFrom(pb.Task(**value))
    assert any(found.startswith(fault) for found in faults(_draft(message)))


def test_faults_of_one_kind_only() -> None:
    asked = pb_task_ins(1, 2)
    asked.task_id = "id"
    no_ancestry = pb_task_res(asked)
    no_ancestry.task.ClearField("ancestry")
    assert faults(_draft(no_ancestry)) == ["ancestry must begin with the task_id that is answered"]
    named_producer = pb_task_ins(1, 2)
    named_producer.task.producer.CopyFrom(pb_node(7))
    assert faults(_draft(named_producer)) == ["producer must be anonymous with node_id 0"]
    odd_producer = pb_task_res(asked, producer=pb.Node(node_id=2, anonymous=True))
    assert faults(_draft(odd_producer)) == ["producer must be either anonymous or have a node_id"]


def test_every_fault_is_named_at_once() -> None:
    message = pb_task_ins(1, 2, ancestry=["x"], error=pb.Error(code=1))
    message.task_id = "taken"
    assert faults(_draft(message)) == [
        "task_id must be empty",
        "exactly one of recordset and error must be set",
        "ancestry must be empty",
    ]
    assert faults(_draft(pb.TaskIns(run_id=1))) == ["task must be set"]


def test_an_error_answer_names_what_it_answers() -> None:
    asked = task_ins(5, 9, ttl=60.0)
    answer = error_answer(asked, TaskError(3, "gone"), now=EPOCH + 50)
    assert (answer.producer, answer.consumer, answer.run_id) == (9, 0, 5)
    assert (answer.ancestry, answer.group_id) == ((asked.task_id,), asked.group_id)
    assert answer.ttl == 10.0
    assert error_answer(asked, TaskError(3, "gone"), now=EPOCH + 99).ttl == 0.0
    assert answer.task_id != asked.task_id
    assert answer.content == TaskError(3, "gone")
    assert answer_to(asked).ancestry == answer.ancestry
