"""Instructions and answers, and the bytes they are over `FlowerService/Join`.

The tensors of a model are most of a message. They are copied once on their way out, into the
message, and once on their way in, out of it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from google.protobuf.message import DecodeError, Message

from superlink_trio.federation.protocols import ParametersLike
from superlink_trio.federation.types import (
    Code,
    DisconnectRes,
    EvaluateRes,
    FitRes,
    GetParametersRes,
    GetPropertiesRes,
    Parameters,
    Status,
)
from superlink_trio.wire import rounds_pb2 as pb
from superlink_trio.wire.runs import Scalar, read_scalars, write_scalar
from superlink_trio.wire.splice import Buffer, Malformed, header, split, wrap

# Field numbers of proto/superlink_trio/wire/rounds.proto.
_INS_PARAMETERS, _RES_PARAMETERS, _TENSORS = 1, 2, 1

_Message = TypeVar("_Message", bound=Message)
Answer: TypeAlias = DisconnectRes | GetPropertiesRes | GetParametersRes | FitRes | EvaluateRes


class Kind(enum.Enum):
    """What is asked of a client. The value is its field number, the same in both directions."""

    RECONNECT = 1
    GET_PROPERTIES = 2
    GET_PARAMETERS = 3
    FIT = 4
    EVALUATE = 5


class WrongKind(Malformed):
    """An answer to something else than what was asked."""


_INSTRUCTIONS: Mapping[Kind, Callable[..., Message]] = {
    Kind.GET_PROPERTIES: pb.GetPropertiesIns,
    Kind.GET_PARAMETERS: pb.GetParametersIns,
    Kind.FIT: pb.FitIns,
    Kind.EVALUATE: pb.EvaluateIns,
}


def write_reconnect(seconds: int | None) -> bytes:
    """Serialise the instruction to disconnect, and to come back after `seconds` unless None."""
    return pb.ServerMessage(reconnect_ins=pb.ReconnectIns(seconds=seconds or 0)).SerializeToString()


def write_config(kind: Kind, config: Mapping[str, Scalar]) -> bytes:
    """Serialise the config of an instruction; equal configs give equal bytes.

    Raises TypeError for a value that is no scalar, ValueError for an int of more than 64 bits.
    """
    scalars = {key: write_scalar(value) for key, value in config.items()}
    return _INSTRUCTIONS[kind](config=scalars).SerializeToString(deterministic=True)


def write_instruction(
    kind: Kind, config: bytes, parameters: ParametersLike | None = None
) -> list[Buffer]:
    """Serialise an instruction, in parts still to be joined.

    `config` comes from `write_config`.
    """
    fields: list[Buffer] = []
    if parameters is not None:
        rest = pb.Parameters(tensor_type=parameters.tensor_type).SerializeToString()
        tensors: list[Buffer] = []
        for tensor in parameters.tensors:
            tensors += [header(_TENSORS, len(tensor)), tensor]
        fields = wrap(_INS_PARAMETERS, [*tensors, rest])
    return wrap(kind.value, [*fields, config])


def read_answer(kind: Kind, raw: bytes) -> Answer:
    """Parse a client's message. Raises WrongKind or Malformed."""
    values, others = split(memoryview(raw), kind.value)
    if other := _parse(pb.ClientMessage, others).WhichOneof("msg"):
        raise WrongKind(f"it answered with a {other} where a {kind.name.lower()} was asked for")
    if not values:
        raise WrongKind(f"its answer is empty where a {kind.name.lower()} was asked for")
    # A field that occurs twice is merged: the same as one that is both in a row.
    body = values[0] if len(values) == 1 else memoryview(b"".join(values))
    return _READERS[kind](body)


def _read_disconnect(body: memoryview) -> DisconnectRes:
    message = _parse(pb.DisconnectRes, body)
    names = pb.DisconnectRes.Reason
    known = message.reason in names.values()
    return DisconnectRes(names.Name(message.reason) if known else "UNKNOWN")


def _read_properties(body: memoryview) -> GetPropertiesRes:
    message = _parse(pb.GetPropertiesRes, body)
    return GetPropertiesRes(_status(message.status), read_scalars(message.properties))


def _read_parameters_res(body: memoryview) -> GetParametersRes:
    parameters, rest = _cut_parameters(body)
    return GetParametersRes(_status(_parse(pb.GetParametersRes, rest).status), parameters)


def _read_fit(body: memoryview) -> FitRes:
    parameters, rest = _cut_parameters(body)
    message = _parse(pb.FitRes, rest)
    return FitRes(
        _status(message.status), parameters, message.num_examples, read_scalars(message.metrics)
    )


def _read_evaluate(body: memoryview) -> EvaluateRes:
    message = _parse(pb.EvaluateRes, body)
    return EvaluateRes(
        _status(message.status), message.loss, message.num_examples, read_scalars(message.metrics)
    )


_READERS: Mapping[Kind, Callable[[memoryview], Answer]] = {
    Kind.RECONNECT: _read_disconnect,
    Kind.GET_PROPERTIES: _read_properties,
    Kind.GET_PARAMETERS: _read_parameters_res,
    Kind.FIT: _read_fit,
    Kind.EVALUATE: _read_evaluate,
}


def _cut_parameters(body: memoryview) -> tuple[Parameters, bytes]:
    values, rest = split(body, _RES_PARAMETERS)
    tensors: list[bytes] = []
    head = b""
    for value in values:
        pieces, others = split(value, _TENSORS)
        tensors += map(bytes, pieces)
        head += others
    return Parameters(tensors, _parse(pb.Parameters, head).tensor_type), rest


def _status(status: pb.Status) -> Status:
    try:
        return Status(Code(status.code), status.message)
    except ValueError:
        raise Malformed(f"status code {status.code} is unknown") from None


def _parse(kind: type[_Message], raw: bytes | memoryview) -> _Message:
    try:
        return kind.FromString(bytes(raw))
    except DecodeError as error:
        raise Malformed(f"its answer cannot be read as a {kind.DESCRIPTOR.name}") from error
