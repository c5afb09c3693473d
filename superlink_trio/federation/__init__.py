"""The round loop: federated rounds run by the server itself, over `FlowerService/Join`."""

from __future__ import annotations

from superlink_trio.federation.arrays import (
    UnusableTensor,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from superlink_trio.federation.fedavg import FedAvg
from superlink_trio.federation.history import History
from superlink_trio.federation.join import join_api
from superlink_trio.federation.manager import (
    ClientManager,
    Criterion,
    SimpleClientManager,
    Stopped,
)
from superlink_trio.federation.mean import NoExamples, Unfit, WeightedMean
from superlink_trio.federation.protocols import (
    ClientManagerLike,
    ConfigLike,
    HistoryLike,
    ServerLike,
    StrategyLike,
)
from superlink_trio.federation.proxy import (
    BadAnswer,
    ClientFailed,
    ClientLeft,
    ClientProxy,
    ClientTimedOut,
)
from superlink_trio.federation.server import Observer, Server, ServerConfig
from superlink_trio.federation.strategy import FitAggregation, Strategy
from superlink_trio.federation.types import (
    Code,
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Parameters,
    ReconnectIns,
    Status,
)

__all__ = [
    "BadAnswer",
    "ClientFailed",
    "ClientLeft",
    "ClientManager",
    "ClientManagerLike",
    "ClientProxy",
    "ClientTimedOut",
    "Code",
    "ConfigLike",
    "Criterion",
    "DisconnectRes",
    "EvaluateIns",
    "EvaluateRes",
    "FedAvg",
    "FitAggregation",
    "FitIns",
    "FitRes",
    "GetParametersIns",
    "GetParametersRes",
    "GetPropertiesIns",
    "GetPropertiesRes",
    "History",
    "HistoryLike",
    "NoExamples",
    "Observer",
    "Parameters",
    "ReconnectIns",
    "Server",
    "ServerConfig",
    "ServerLike",
    "SimpleClientManager",
    "Status",
    "Stopped",
    "Strategy",
    "StrategyLike",
    "Unfit",
    "UnusableTensor",
    "WeightedMean",
    "join_api",
    "ndarrays_to_parameters",
    "parameters_to_ndarrays",
]
