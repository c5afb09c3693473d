from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from superlink_trio.federation import Code, FitRes, Parameters
from superlink_trio.federation.messages import (
    Kind,
    WrongKind,
    read_answer,
    write_config,
    write_instruction,
    write_reconnect,
)
from superlink_trio.wire import rounds_pb2 as pb
from superlink_trio.wire.runs import write_scalar
from superlink_trio.wire.splice import Malformed

SCALARS = (
    st.floats(allow_nan=False)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.text()
    | st.binary()
)
MAPS = st.dictionaries(st.text(), SCALARS, max_size=4)
PARAMETERS = st.builds(Parameters, st.lists(st.binary(), max_size=4), st.text())


def serialised(parameters: Parameters) -> bytes:
    return pb.Parameters(
        tensors=parameters.tensors, tensor_type=parameters.tensor_type
    ).SerializeToString()


def scalars(values: dict[str, Any]) -> dict[str, Any]:
    return {key: write_scalar(value) for key, value in values.items()}


@given(PARAMETERS, MAPS, st.sampled_from([Kind.FIT, Kind.EVALUATE]))
def test_an_instruction_is_the_message_it_should_be(
    parameters: Parameters, config: dict[str, Any], kind: Kind
) -> None:
    raw = b"".join(write_instruction(kind, write_config(kind, config), parameters))
    message = pb.ServerMessage.FromString(raw)
    ins = message.fit_ins if kind is Kind.FIT else message.evaluate_ins
    assert message.WhichOneof("msg") == f"{kind.name.lower()}_ins"
    assert pb.Parameters.FromString(ins.parameters) == pb.Parameters.FromString(
        serialised(parameters)
    )
    assert dict(ins.config) == scalars(config)


@given(MAPS, st.sampled_from([Kind.GET_PROPERTIES, Kind.GET_PARAMETERS]))
def test_a_question_without_a_model_is_the_message_it_should_be(
    config: dict[str, Any], kind: Kind
) -> None:
    message = pb.ServerMessage.FromString(
        b"".join(write_instruction(kind, write_config(kind, config)))
    )
    assert message.WhichOneof("msg") == f"{kind.name.lower()}_ins"


@given(MAPS)
def test_equal_configs_give_equal_bytes(config: dict[str, Any]) -> None:
    backwards = dict(reversed(config.items()))
    assert write_config(Kind.FIT, config) == write_config(Kind.FIT, backwards)


@pytest.mark.parametrize("seconds", [None, 0, 7])
def test_reconnect(seconds: int | None) -> None:
    message = pb.ServerMessage.FromString(write_reconnect(seconds))
    assert message.HasField("reconnect_ins")
    assert message.reconnect_ins.seconds == (seconds or 0)


@pytest.mark.parametrize("value", [None, [1.0], 2j])
def test_a_config_of_other_values_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"not a float, int, bool, str or bytes"):
        write_config(Kind.FIT, {"key": value})


@given(PARAMETERS, MAPS, st.integers(-(2**63), 2**63 - 1), st.sampled_from(Code), st.text())
def test_a_fit_result_is_read_as_it_was_written(
    parameters: Parameters, metrics: dict[str, Any], examples: int, code: Code, text: str
) -> None:
    message = pb.ClientMessage(
        fit_res=pb.FitRes(
            status=pb.Status(code=code.name, message=text),
            parameters=serialised(parameters),
            num_examples=examples,
            metrics=scalars(metrics),
        )
    )
    read = read_answer(Kind.FIT, message.SerializeToString())
    assert isinstance(read, FitRes)
    assert (read.parameters, read.metrics, read.num_examples) == (parameters, metrics, examples)
    assert (read.status.code, read.status.message) == (code, text)


@given(PARAMETERS)
def test_a_field_in_two_pieces_is_one(parameters: Parameters) -> None:
    first = pb.ClientMessage(fit_res=pb.FitRes(parameters=serialised(parameters)))
    second = pb.ClientMessage(fit_res=pb.FitRes(num_examples=3))
    read = read_answer(Kind.FIT, first.SerializeToString() + second.SerializeToString())
    assert isinstance(read, FitRes)
    assert (read.parameters, read.num_examples) == (parameters, 3)


@pytest.mark.parametrize("asked", Kind)
@pytest.mark.parametrize("answered", [*pb.ClientMessage.DESCRIPTOR.fields, None])
def test_an_answer_to_something_else_is_told_from_one(asked: Kind, answered: Any) -> None:
    message = pb.ClientMessage()
    if answered is not None:
        getattr(message, answered.name).SetInParent()
    if answered is not None and answered.number == asked.value:
        read_answer(asked, message.SerializeToString())
    else:
        with pytest.raises(WrongKind, match=asked.name.lower()):
            read_answer(asked, message.SerializeToString())


@given(st.sampled_from(Kind), st.binary())
def test_any_bytes_are_an_answer_or_malformed(kind: Kind, raw: bytes) -> None:
    with suppress(Malformed):
        read_answer(kind, raw)


@given(st.sampled_from(Kind), st.binary())
def test_any_body_is_an_answer_or_malformed(kind: Kind, body: bytes) -> None:
    raw = bytes([kind.value << 3 | 2])
    length = len(body)
    while length > 127:
        raw += bytes([length & 127 | 128])
        length >>= 7
    with suppress(Malformed):
        read_answer(kind, raw + bytes([length]) + body)


def test_an_unknown_status_is_malformed() -> None:
    message = pb.ClientMessage(fit_res=pb.FitRes(status=pb.Status(code=99)))  # type: ignore[arg-type]  # not in the enum
    with pytest.raises(Malformed, match="99"):
        read_answer(Kind.FIT, message.SerializeToString())
