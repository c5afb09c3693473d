"""A client as the server and its strategy see it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from superlink_trio.federation.types import (
    DisconnectRes,
    EvaluateIns,
    EvaluateRes,
    FitIns,
    FitRes,
    GetParametersIns,
    GetParametersRes,
    GetPropertiesIns,
    GetPropertiesRes,
    Properties,
    ReconnectIns,
)


class ClientFailed(Exception):
    """A client did not answer as it was asked to; the message says what it did."""


class ClientLeft(ClientFailed):
    """It disconnected before it had answered."""


class ClientTimedOut(ClientFailed):
    """It did not answer in time."""


class BadAnswer(ClientFailed):
    """It answered with something that is no answer to what it was asked."""


class ClientProxy(ABC):
    """A client that can be asked, one thing at a time.

    These methods block, and are for strategies: they run in threads of their own. `timeout` is in
    seconds, None waits for ever. `group_id` is the number of the round; nothing is done with it
    here. Each raises ClientFailed.
    """

    def __init__(self, cid: str) -> None:
        self.cid = cid
        self.properties: Properties = {}

    @abstractmethod
    def get_properties(
        self, ins: GetPropertiesIns, timeout: float | None, group_id: int | None = None
    ) -> GetPropertiesRes:
        """Ask for its properties."""

    @abstractmethod
    def get_parameters(
        self, ins: GetParametersIns, timeout: float | None, group_id: int | None = None
    ) -> GetParametersRes:
        """Ask for its own model."""

    @abstractmethod
    def fit(self, ins: FitIns, timeout: float | None, group_id: int | None = None) -> FitRes:
        """Have it train a model on its data."""

    @abstractmethod
    def evaluate(
        self, ins: EvaluateIns, timeout: float | None, group_id: int | None = None
    ) -> EvaluateRes:
        """Have it evaluate a model on its data."""

    @abstractmethod
    def reconnect(
        self, ins: ReconnectIns, timeout: float | None, group_id: int | None = None
    ) -> DisconnectRes:
        """Have it disconnect, and come back later if `ins` says so."""
