"""Fuzzing what cuts payloads out of messages: it has to agree with protobuf, to the byte."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError

from superlink_trio.wire import recordset_pb2 as whole
from superlink_trio.wire import superlink_pb2 as pb
from superlink_trio.wire.splice import Malformed, header, split
from superlink_trio.wire.tasks import (
    Draft,
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

_M = TypeVar("_M")


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
    expected = _parsed(pb.PushTaskInsRequest.FromString, raw)
    drafts = _read(read_push_task_ins, raw)
    if expected is None or drafts is None:
        _check_refusal(raw, refused_by_us=drafts is None, refused_by_protobuf=expected is None)
        return
    _check_drafts(drafts, expected.task_ins_list)
    for draft in drafts:
        if not faults(draft):
            written = b"".join(write_pull_task_ins([accept(draft, pushed_at=NOW)], "then"))
            (item,) = pb.PullTaskInsResponse.FromString(written).task_ins_list
            _check_round_trip(draft, item)


def _check_res(raw: bytes) -> None:
    expected = _parsed(pb.PushTaskResRequest.FromString, raw)
    drafts = _read(read_push_task_res, raw)
    if expected is None or drafts is None:
        _check_refusal(raw, refused_by_us=drafts is None, refused_by_protobuf=expected is None)
        return
    _check_drafts(drafts, expected.task_res_list)
    producers = [item.task.producer.node_id for item in expected.task_res_list]
    assert read_producers(raw) == producers, "the producers differ"
    for draft in drafts:
        if not faults(draft):
            written = b"".join(write_pull_task_res([accept(draft, pushed_at=NOW)], "then"))
            (item,) = pb.PullTaskResResponse.FromString(written).task_res_list
            _check_round_trip(draft, item)
    complete = _parsed(whole.WholePushTaskResRequest.FromString, raw)
    if complete is not None:
        for draft, merged in zip(drafts, complete.task_res_list, strict=True):
            record_set = whole.RecordSet.FromString(draft.payload or b"")
            assert record_set == merged.task.recordset, "the payload means something else"


def _check_refusal(raw: bytes, *, refused_by_us: bool, refused_by_protobuf: bool) -> None:
    if refused_by_us and not refused_by_protobuf:
        assert _has_group(raw), "protobuf reads what we refuse"
    if refused_by_protobuf and not refused_by_us:
        raise AssertionError("we read what protobuf refuses")


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


def _check_round_trip(draft: Draft, item: pb.TaskIns | pb.TaskRes) -> None:
    if draft.payload is None:
        told, sent = item.task.error, draft.message.task.error
        assert (told.code, told.reason) == (sent.code, sent.reason), "an error has changed"
    else:
        assert item.task.recordset == draft.payload, "a payload has changed on its way"
    assert item.run_id == draft.message.run_id
    assert item.task.ancestry == draft.message.task.ancestry


def _parsed(parse: Callable[[bytes], _M], raw: bytes) -> _M | None:
    try:
        return parse(raw)
    except DecodeError:
        return None


def _read(read: Callable[[bytes], list[Draft]], raw: bytes) -> list[Draft] | None:
    try:
        return read(raw)
    except Malformed:
        return None


def _has_group(raw: bytes) -> bool:
    """Whether a group may begin or end in these bytes: a field of proto2 that we do not know."""
    return any(byte & 7 in _GROUPS for byte in raw)
