"""What a run is made of, as far as it goes by names alone.

Objects of `flwr` have these attributes and methods, and so have those of this package. What they
give is described by protocols. What their methods are given is ours, and is called `Given`. What
each method is for, at length, is said by `Strategy`, `ClientManager` and `Server`.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from superlink_trio.wire.runs import Scalar

Given: TypeAlias = Any
"""An object of this package, for a method that may name a class of `flwr` in its place.

The two have the same fields and no common base, so there is no type that both methods take.
"""


class ParametersLike(Protocol):
    """A model: one serialised tensor a layer."""

    @property
    def tensors(self) -> Sequence[bytes]:
        """The layers."""

    @property
    def tensor_type(self) -> str:
        """How they are serialised."""


class ConfigLike(Protocol):
    """How long a run is."""

    @property
    def num_rounds(self) -> int:
        """The number of rounds."""

    @property
    def round_timeout(self) -> float | None:
        """The seconds a client has for each answer; None: any number."""


class InsLike(Protocol):
    """What a client is to train on, or to evaluate."""

    @property
    def parameters(self) -> ParametersLike:
        """The model."""

    @property
    def config(self) -> Mapping[str, Scalar]:
        """What the strategy has to say to the client's app."""


class StatusLike(Protocol):
    """How a client fared."""

    @property
    def code(self) -> enum.Enum:
        """Equal to a member of `Code`."""

    @property
    def message(self) -> str:
        """What the client says about it."""


class ModelLike(Protocol):
    """A client's own model."""

    @property
    def status(self) -> StatusLike:
        """How it fared."""

    @property
    def parameters(self) -> ParametersLike:
        """The model."""


class ClientLike(Protocol):
    """A client that can be asked. Its methods block: they are called in threads.

    It has `fit` and `evaluate` as well, by the name of the phase.
    """

    @property
    def cid(self) -> str:
        """What it is called by."""

    def get_parameters(self, ins: Given, timeout: float | None, group_id: int | None) -> ModelLike:
        """Ask for its own model."""


class ClientManagerLike(Protocol):
    """Which clients there are."""

    def num_available(self) -> int:
        """Count the clients."""

    def register(self, client: Given, /) -> bool:
        """Take in a client that has connected, or turn it away."""

    def unregister(self, client: Given, /) -> None:
        """Forget a client that has gone."""

    def sample(self, num_clients: int, /) -> Sequence[ClientLike]:
        """Wait for that many clients, and choose them."""


class StrategyLike(Protocol):
    """The decisions of a run."""

    def initialize_parameters(self, client_manager: Given) -> ParametersLike | None:
        """Give the model to start from."""

    def configure_fit(
        self, server_round: int, parameters: Given, client_manager: Given
    ) -> Sequence[tuple[ClientLike, InsLike]]:
        """Choose who trains."""

    def aggregate_fit(
        self, server_round: int, results: Given, failures: Given
    ) -> tuple[ParametersLike | None, Mapping[str, Scalar]]:
        """Make one model of the results."""

    def configure_evaluate(
        self, server_round: int, parameters: Given, client_manager: Given
    ) -> Sequence[tuple[ClientLike, InsLike]]:
        """Choose who evaluates."""

    def aggregate_evaluate(
        self, server_round: int, results: Given, failures: Given
    ) -> tuple[float | None, Mapping[str, Scalar]]:
        """Make one loss of the results."""

    def evaluate(
        self, server_round: int, parameters: Given
    ) -> tuple[float, Mapping[str, Scalar]] | None:
        """Evaluate the model on the server."""


class AggregationLike(Protocol):
    """What a strategy's `begin_fit` gives, if it has one: see `FitAggregation`."""

    def add(self, client: Given, result: Given, /) -> None:
        """Take in one result."""

    def finish(self, failures: Given, /) -> tuple[ParametersLike | None, Mapping[str, Scalar]]:
        """Make one model of the results."""


class HistoryLike(Protocol):
    """What a run came to: values with the number of their round."""

    @property
    def losses_distributed(self) -> Sequence[tuple[int, float]]:
        """Of federated evaluations."""

    @property
    def losses_centralized(self) -> Sequence[tuple[int, float]]:
        """Of evaluations on the server."""

    @property
    def metrics_distributed_fit(self) -> Mapping[str, Sequence[tuple[int, Scalar]]]:
        """Of trainings, by name."""

    @property
    def metrics_distributed(self) -> Mapping[str, Sequence[tuple[int, Scalar]]]:
        """Of federated evaluations, by name."""

    @property
    def metrics_centralized(self) -> Mapping[str, Sequence[tuple[int, Scalar]]]:
        """Of evaluations on the server, by name."""


class ServerLike(Protocol):
    """What runs the rounds. Where `fit` blocks it is called in a thread."""

    @property
    def strategy(self) -> StrategyLike:
        """Decides."""

    def client_manager(self) -> ClientManagerLike:
        """Give what knows the clients."""

    def fit(
        self, num_rounds: int, timeout: float | None, /
    ) -> tuple[HistoryLike, float] | Awaitable[tuple[HistoryLike, float]]:
        """Run the rounds; give their History, and the seconds they took."""
