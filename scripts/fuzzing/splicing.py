"""Fuzzing what cuts payloads out of messages: it has to agree with protobuf, to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from google.protobuf.message import DecodeError, Message

from superlink_trio.wire import recordset_pb2 as whole
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import Buffer, Malformed, header, split
from superlink_trio.wire.tasks import (
    Draft,
    Task,
    accept,
    faults,
    read_producers,
    read_push_task_ins,
    read_push_task_res,
    write_pull_task_ins,
    write_pull_task_res,
)

NOW = 1_800_000_000.0
_GROUPS = (3, 4)


def seeds() -> Iterator[bytes]:
    """Give requests as clients send them."""
    node, driver = pb.Node(node_id=-7), pb.Node(anonymous=True)
    common = pb.Task(created_at=NOW, ttl=3600.0, task_type="train")
    record_set = whole.RecordSet(
        parameters={
            "model": whole.ParametersRecord(
                data_keys=["w"],
                data_values=[whole.Array(dtype="f4", shape=[2], stype="numpy.ndarray", data=b"12")],
            )
        },
        configs={"c": whole.ConfigsRecord(data={"x": whole.ConfigsRecordValue(bool_value=True)})},
    ).SerializeToString()
    asked = pb.Task(producer=driver, consumer=node, recordset=record_set)
    answered = pb.Task(producer=node, consumer=driver, ancestry=["a-task"], recordset=record_set)
    failed = pb.Task(producer=node, consumer=driver, ancestry=["a-task"])
    failed.error.code, failed.error.reason = 2, "it raised"
    for task in (asked, answered, failed):
        task.MergeFrom(common)
    ins = [pb.TaskIns(group_id="1", run_id=-5, task=asked)]
    res = [pb.TaskRes(group_id="1", run_id=-5, task=task) for task in (answered, failed)]
    yield b""
    yield pb.PushTaskInsRequest(task_ins_list=ins).SerializeToString()
    yield pb.PushTaskInsRequest(task_ins_list=ins * 2).SerializeToString()
    yield pb.PushTaskResRequest(task_res_list=res).SerializeToString()
    yield record_set


def check(raw: bytes) -> None:
    """Raise AssertionError where these bytes are read in another way than protobuf's."""
    for number in (1, 4, 9):
        _check_split(raw, number)
    _check_ins(raw)
    _check_res(raw)


def _check_split(raw: bytes, number: int) -> None:
    try:
        values, rest = split(memoryview(raw), number)
    except Malformed:
        return
    assert split(memoryview(rest), number) == ([], rest), "something was left behind"
    again = b"".join(b"".join((header(number, len(value)), value)) for value in values)
    assert split(memoryview(again + rest), number)[0] == values, "a value has changed"


def _check_ins(raw: bytes) -> None:
    expected = _parsed(pb.PushTaskInsRequest, raw)
    drafts = _drafts(read_push_task_ins, raw, refused_by_protobuf=expected is None)
    if drafts is not None:
        _check_drafts(drafts, expected.task_ins_list)
        _check_written(drafts, write_pull_task_ins, pb.PullTaskInsResponse, "task_ins_list")


def _check_res(raw: bytes) -> None:
    expected = _parsed(pb.PushTaskResRequest, raw)
    drafts = _drafts(read_push_task_res, raw, refused_by_protobuf=expected is None)
    if drafts is None:
        return
    _check_drafts(drafts, expected.task_res_list)
    producers = [item.task.producer.node_id for item in expected.task_res_list]
    assert read_producers(raw) == producers, "the producers differ"
    _check_written(drafts, write_pull_task_res, pb.PullTaskResResponse, "task_res_list")
    complete = _parsed(whole.WholePushTaskResRequest, raw)
    if complete is not None:
        for draft, merged in zip(drafts, complete.task_res_list, strict=True):
            record_set = whole.RecordSet.FromString(draft.payload or b"")
            assert record_set == merged.task.recordset, "the payload means something else"


def _parsed(kind: type[Message], raw: bytes) -> Any:
    try:
        return kind.FromString(raw)
    except DecodeError:
        return None


def _drafts(
    read: Callable[[bytes], list[Draft]], raw: bytes, *, refused_by_protobuf: bool
) -> list[Draft] | None:
    try:
        drafts = read(raw)
    except Malformed:
        # A group is a field of proto2 that we do not know.
        may_have_group = any(byte & 7 in _GROUPS for byte in raw)
        assert refused_by_protobuf or may_have_group, "protobuf reads what we refuse"
        return None
    assert not refused_by_protobuf, "we read what protobuf refuses"
    return drafts


def _check_drafts(drafts: Sequence[Draft], items: Sequence[pb.TaskIns | pb.TaskRes]) -> None:
    assert len(drafts) == len(items), "there are more or fewer items"
    for draft, item in zip(drafts, items, strict=True):
        assert (draft.payload is not None) == item.task.HasField("recordset")
        # Of a field of bytes that comes twice protobuf keeps the last; a message is merged.
        assert (draft.payload or b"").endswith(item.task.recordset)
        if item.HasField("task"):
            item.task.ClearField("recordset")
        assert _comparable(draft.message) == _comparable(item), "other fields differ"


def _comparable(message: pb.TaskIns | pb.TaskRes) -> bytes:
    # Serialised, since NaN is not equal to itself.
    return message.SerializeToString(deterministic=True)


def _check_written(
    drafts: Iterable[Draft],
    write: Callable[[Iterable[Task], str], Iterable[Buffer]],
    answer: type[Message],
    items: str,
) -> None:
    for draft in drafts:
        if faults(draft):
            continue
        written = b"".join(write([accept(draft, pushed_at=NOW)], "then"))
        [item] = getattr(answer.FromString(written), items)
        if draft.payload is None:
            told, sent = item.task.error, draft.message.task.error
            assert (told.code, told.reason) == (sent.code, sent.reason), "an error has changed"
        else:
            assert item.task.recordset == draft.payload, "a payload has changed on its way"
        assert item.run_id == draft.message.run_id
        assert item.task.ancestry == draft.message.task.ancestry
