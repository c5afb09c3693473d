"""What a run is made of, as far as it goes by names alone.

Objects of `flwr` have these attributes and methods, and so have those of this package. Where the
two differ, in the classes of clients, instructions and answers, `Any` stands for either. What each
method is for, at length, is said by `Strategy`, `ClientManager` and `Server`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Protocol

from superlink_trio.wire.runs import Scalar


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


class ClientManagerLike(Protocol):
    """Which clients there are."""

    def num_available(self) -> int:
        """Count the clients."""

    def register(self, client: Any, /) -> bool:
        """Take in a client that has connected, or turn it away."""

    def unregister(self, client: Any, /) -> None:
        """Forget a client that has gone."""

    def sample(self, num_clients: int, /) -> Sequence[Any]:
        """Wait for that many clients, and choose them."""


class StrategyLike(Protocol):
    """The decisions of a run."""

    def initialize_parameters(self, client_manager: Any) -> ParametersLike | None:
        """Give the model to start from."""

    def configure_fit(
        self, server_round: int, parameters: Any, client_manager: Any
    ) -> Sequence[tuple[Any, InsLike]]:
        """Choose who trains."""

    def aggregate_fit(
        self, server_round: int, results: Any, failures: Any
    ) -> tuple[ParametersLike | None, Mapping[str, Scalar]]:
        """Make one model of the results."""

    def configure_evaluate(
        self, server_round: int, parameters: Any, client_manager: Any
    ) -> Sequence[tuple[Any, InsLike]]:
        """Choose who evaluates."""

    def aggregate_evaluate(
        self, server_round: int, results: Any, failures: Any
    ) -> tuple[float | None, Mapping[str, Scalar]]:
        """Make one loss of the results."""

    def evaluate(
        self, server_round: int, parameters: Any
    ) -> tuple[float, Mapping[str, Scalar]] | None:
        """Evaluate the model on the server."""


class ServerLike(Protocol):
    """What runs the rounds. Where `fit` blocks it is called in a thread."""

    @property
    def strategy(self) -> StrategyLike:
        """Decides."""

    def client_manager(self) -> ClientManagerLike:
        """Give what knows the clients."""

    def fit(
        self, num_rounds: int, timeout: float | None, /
    ) -> tuple[Any, float] | Awaitable[tuple[Any, float]]:
        """Run the rounds; give their History, and the seconds they took."""
