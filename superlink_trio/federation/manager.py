"""Which clients there are, and which of them take part in a round."""

from __future__ import annotations

import logging
import random
import threading
from abc import ABC, abstractmethod

from superlink_trio.federation.proxy import ClientProxy
from superlink_trio.logs.wording import counted

_log = logging.getLogger(__name__)

# Seconds: a day.
_WAIT = 86_400


class Stopped(Exception):
    """The server stops: there is nothing to wait for any more."""


class Criterion(ABC):
    """Decides which clients may be sampled."""

    @abstractmethod
    def select(self, client: ClientProxy) -> bool:
        """Return whether this one may."""


class ClientManager(ABC):
    """The clients that are connected now. Strategies call it from threads of their own."""

    @abstractmethod
    def num_available(self) -> int:
        """Count the clients."""

    @abstractmethod
    def register(self, client: ClientProxy) -> bool:
        """Take in a client that has connected; False turns it away. Must not block."""

    @abstractmethod
    def unregister(self, client: ClientProxy) -> None:
        """Forget a client that has gone, if it is known. Must not block."""

    @abstractmethod
    def all(self) -> dict[str, ClientProxy]:
        """Give every client by its cid."""

    @abstractmethod
    def wait_for(self, num_clients: int, timeout: float = _WAIT) -> bool:
        """Block until that many clients are connected; False when `timeout` seconds are over."""

    @abstractmethod
    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Block until enough clients are connected, and give that many at random.

        Waits for `min_num_clients` (default: `num_clients`). Gives none when fewer than
        `num_clients` are there, or pass the criterion, then.
        """


class SimpleClientManager(ClientManager):
    """Every client that is connected, in the order in which they came.

    Samples with the `random` module's own generator, so that `random.seed` settles who is chosen.
    """

    def __init__(self) -> None:
        self.clients: dict[str, ClientProxy] = {}
        self._changed = threading.Condition()
        self._stopped = False

    def __len__(self) -> int:
        return len(self.clients)

    def num_available(self) -> int:
        """Count the clients."""
        return len(self)

    def register(self, client: ClientProxy) -> bool:
        """Take in a client; False if one with this cid is here already."""
        with self._changed:
            if client.cid in self.clients:
                return False
            self.clients[client.cid] = client
            self._changed.notify_all()
            return True

    def unregister(self, client: ClientProxy) -> None:
        """Forget a client."""
        with self._changed:
            self.clients.pop(client.cid, None)

    def all(self) -> dict[str, ClientProxy]:
        """Give every client by its cid: a copy, which stays as it is."""
        with self._changed:
            return dict(self.clients)

    def wait_for(self, num_clients: int, timeout: float = _WAIT) -> bool:
        """Block until that many clients are connected. Raises Stopped when the server stops."""
        with self._changed:
            if len(self) < num_clients and not self._stopped:
                _log.info("Waiting for clients: %d of %d connected", len(self), num_clients)
            enough = self._changed.wait_for(
                lambda: self._stopped or len(self) >= num_clients, timeout
            )
            if self._stopped:
                raise Stopped("the server stops: no more clients come")
            return enough

    def sample(
        self,
        num_clients: int,
        min_num_clients: int | None = None,
        criterion: Criterion | None = None,
    ) -> list[ClientProxy]:
        """Give clients at random. Raises Stopped when the server stops meanwhile."""
        self.wait_for(num_clients if min_num_clients is None else min_num_clients)
        candidates = list(self.all().values())
        if criterion is not None:
            candidates = [client for client in candidates if criterion.select(client)]
        if num_clients > len(candidates):
            _log.warning(
                "Asked for %s, and %d can be chosen: none is",
                *(counted(num_clients, "client"), len(candidates)),
            )
            return []
        return random.sample(candidates, num_clients)

    def stop(self) -> None:
        """Let whoever waits here go, with Stopped; until `start`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def start(self) -> None:
        """Wait for clients, again after a `stop`."""
        with self._changed:
            self._stopped = False
