"""Messages between server and clients, as strategies see them.

Plain dataclasses with the fields, and in the order, that Flower's own have: a strategy written for
`flwr` builds its instructions from Flower's classes and reads our answers, and a strategy written
for this package may be given either. Nothing here is asked for its class, only for its fields.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from superlink_trio.wire.runs import Scalar

Config: TypeAlias = dict[str, Scalar]
Metrics: TypeAlias = dict[str, Scalar]
Properties: TypeAlias = dict[str, Scalar]


class Code(enum.Enum):
    """How a client fared with an instruction.

    Equal to the member of `flwr.common.Code` with the same value: that is how strategies ask
    whether an answer is a success.
    """

    OK = 0
    GET_PROPERTIES_NOT_IMPLEMENTED = 1
    GET_PARAMETERS_NOT_IMPLEMENTED = 2
    FIT_NOT_IMPLEMENTED = 3
    EVALUATE_NOT_IMPLEMENTED = 4

    def __eq__(self, other: object) -> bool:
        if isinstance(other, enum.Enum) and type(other).__name__ == "Code":
            return bool(self.value == other.value)
        return NotImplemented

    def __hash__(self) -> int:
        # As enum.Enum has it, so that members which are equal hash alike.
        return hash(self._name_)


@dataclass
class Status:
    """How a client fared, and what it says about it."""

    code: Code = Code.OK
    message: str = ""


@dataclass
class Parameters:
    """A model: one serialised tensor a layer.

    `tensor_type` says how they are serialised; `numpy.ndarray` stands for .npy files without
    pickled objects.
    """

    tensors: list[bytes] = field(repr=False)
    tensor_type: str = "numpy.ndarray"


@dataclass
class GetPropertiesIns:
    """Asks for a client's properties."""

    config: Config


@dataclass
class GetPropertiesRes:
    """A client's properties."""

    status: Status
    properties: Properties


@dataclass
class GetParametersIns:
    """Asks for a client's own model."""

    config: Config


@dataclass
class GetParametersRes:
    """A client's own model."""

    status: Status
    parameters: Parameters


@dataclass
class FitIns:
    """Asks for training on the client's data, starting from these parameters."""

    parameters: Parameters
    config: Config


@dataclass
class FitRes:
    """The trained model, and the number of examples it was trained on."""

    status: Status
    parameters: Parameters
    num_examples: int
    metrics: Metrics


@dataclass
class EvaluateIns:
    """Asks for an evaluation of these parameters on the client's data."""

    parameters: Parameters
    config: Config


@dataclass
class EvaluateRes:
    """The loss on the client's data, and the number of examples it was computed on."""

    status: Status
    loss: float
    num_examples: int
    metrics: Metrics


@dataclass
class ReconnectIns:
    """Tells a client to disconnect, and to come back after `seconds`; None: not at all."""

    seconds: int | None


@dataclass
class DisconnectRes:
    """A client's last word: why it disconnects, such as `ACK` or `RECONNECT`."""

    reason: str
