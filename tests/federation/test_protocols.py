"""What type checkers make of other people's objects: mypy reads this file, too.

The classes here have no base of ours, and name classes of their own, as those of `flwr` do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

import pytest
import trio

from superlink_trio import FedAvg, History, Server, ServerConfig, SimpleClientManager, start_server
from superlink_trio.federation import (
    ClientManagerLike,
    ConfigLike,
    HistoryLike,
    ServerLike,
    StrategyLike,
)
from superlink_trio.wire.runs import Scalar

Metrics = dict[str, Scalar]


class Outcome(enum.Enum):
    FINE = 0


@dataclass
class Status:
    code: Outcome = Outcome.FINE
    message: str = ""


@dataclass
class Model:
    tensors: list[bytes]
    tensor_type: str = "numpy.ndarray"


@dataclass
class Ask:
    parameters: Model
    config: Metrics = field(default_factory=dict)


@dataclass
class Answer:
    status: Status
    parameters: Model


class Client:
    def __init__(self, cid: str) -> None:
        self.cid = cid

    def get_parameters(self, ins: Ask, timeout: float | None, group_id: int | None) -> Answer:
        return Answer(Status(), Model([]))


class Clients:
    def num_available(self) -> int:
        return 0

    def register(self, client: Client) -> bool:
        return True

    def unregister(self, client: Client) -> None:
        pass

    def sample(self, num_clients: int, min_num_clients: int | None = None) -> list[Client]:
        return []


class Decisions:
    def initialize_parameters(self, client_manager: Clients) -> Model | None:
        return Model([b"first"])

    def configure_fit(
        self, server_round: int, parameters: Model, client_manager: Clients
    ) -> list[tuple[Client, Ask]]:
        return []

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Client, Answer]], failures: list[Exception]
    ) -> tuple[Model | None, Metrics]:
        return None, {}

    def configure_evaluate(
        self, server_round: int, parameters: Model, client_manager: Clients
    ) -> list[tuple[Client, Ask]]:
        return []

    def aggregate_evaluate(
        self, server_round: int, results: list[tuple[Client, Answer]], failures: list[Exception]
    ) -> tuple[float | None, Metrics]:
        return None, {}

    def evaluate(self, server_round: int, parameters: Model) -> tuple[float, Metrics] | None:
        return float(server_round), {"tensors": len(parameters.tensors)}


@dataclass
class Length:
    num_rounds: int = 1
    round_timeout: float | None = None


@dataclass
class Record:
    losses_distributed: list[tuple[int, float]] = field(default_factory=list)
    losses_centralized: list[tuple[int, float]] = field(default_factory=list)
    metrics_distributed_fit: dict[str, list[tuple[int, Scalar]]] = field(default_factory=dict)
    metrics_distributed: dict[str, list[tuple[int, Scalar]]] = field(default_factory=dict)
    metrics_centralized: dict[str, list[tuple[int, Scalar]]] = field(default_factory=dict)


class Rounds:
    """A server whose `fit` blocks."""

    def __init__(self) -> None:
        self.strategy = Decisions()

    def client_manager(self) -> Clients:
        return Clients()

    def fit(self, num_rounds: int, timeout: float | None) -> tuple[Record, float]:
        return Record(losses_centralized=[(num_rounds, 0.5)]), 0.0


class Forgetful:
    """A strategy that does not aggregate, and a server that gives no History."""

    def configure_fit(self, server_round: int, parameters: Model, client_manager: Clients) -> None:
        pass

    strategy = Decisions()

    def client_manager(self) -> Clients:
        return Clients()

    def fit(self, num_rounds: int, timeout: float | None) -> int:
        return 0


OURS: tuple[StrategyLike, ClientManagerLike, ConfigLike, ServerLike, HistoryLike] = (
    FedAvg(),
    SimpleClientManager(),
    ServerConfig(),
    Server(),
    History(),
)
THEIRS: tuple[StrategyLike, ClientManagerLike, ConfigLike, ServerLike, HistoryLike] = (
    Decisions(),
    Clients(),
    Length(),
    Rounds(),
    Record(),
)


async def test_a_server_runs_the_strategy_of_others() -> None:
    strategy, manager, config, _, _ = THEIRS
    server = Server(strategy=strategy, client_manager=manager)
    with trio.fail_after(10):
        history, _ = await server.fit(config.num_rounds, config.round_timeout)
    assert history.losses_centralized == [(0, 0.0), (1, 1.0)]
    assert history.metrics_centralized == {"tensors": [(0, 1), (1, 1)]}


def test_the_history_is_of_the_kind_that_the_server_has() -> None:
    ours: History = start_server(server_address="127.0.0.1:0", strategy=Decisions())
    assert ours.to_dict()["losses_centralized"] == [[0, 0.0], [1, 1.0]]
    theirs: HistoryLike = start_server(server_address="127.0.0.1:0", server=Rounds())
    assert theirs == Record(losses_centralized=[(1, 0.5)])


def test_what_lacks_a_part_is_found_before_it_runs() -> None:
    # An ignored error that is none is an error to mypy.
    strategy: StrategyLike = Forgetful()  # type: ignore[assignment]  # no aggregate_fit
    server: ServerLike = Forgetful()  # type: ignore[assignment]  # no History
    config: ConfigLike = Status()  # type: ignore[assignment]  # no num_rounds
    history: History = THEIRS[-1]  # type: ignore[assignment]  # of another class
    assert not isinstance(history, History)
    with pytest.raises(AttributeError, match="aggregate_fit"):
        strategy.aggregate_fit(1, [], [])
    with pytest.raises(AttributeError, match="num_rounds"):
        config.num_rounds  # noqa: B018 - it is the look that fails
    assert server.client_manager().num_available() == 0
